"""Reads what a server says of a failure: message, code and kind, out of any body and headers.

The known places come first, since they give the best words. Otherwise every name in the body is looked at, within
bounds, and the text under the most promising one is taken. An excerpt repeats neither vectors nor what a user has
sent: it is short, and its strings and lists of numbers are cut. Pure; runs on failures only.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from .._types import Response

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

EXCERPT = 2_000  # characters of a body kept on an error
SHORT = 300  # characters of a body in which no message was found
STRING = 100  # characters of one string in it
LONG = 100_000  # bytes that no body without vectors has
NODES = 5_000  # values looked at in a body
DEPTH = 12  # how deep
FEW = 3  # numbers shown of a list; a longer one is a vector
MOST = 5  # texts joined into one message


class ErrorBody(msgspec.Struct, frozen=True):
    """What a body says of its own failure; empty strings if it says nothing."""

    message: str = ""
    code: str = ""
    kind: str = ""
    body: Any = None


def read_error_body(response: Response) -> ErrorBody:
    """Message, code and kind out of any envelope, plain text, an HTML page or, if the body says nothing, a header."""
    text = text_of_body(response)
    try:
        body = _decoded(text)
    except (msgspec.DecodeError, RecursionError):
        found = _prose(text)
    else:
        found = _of_json(body, response.status)
    return found if found.message else msgspec.structs.replace(found, message=_in_headers(response.headers))


def words_of_rows(response: Response, count: int, rows: Container[int]) -> dict[int, str]:
    """What a success of `count` items says in the place of single vectors: row, of these, → the words of its item."""
    try:
        body = _decoded(text_of_body(response))
    except (msgspec.DecodeError, RecursionError):
        return {}
    listed = (value for _, value in _walked(body) if isinstance(value, list) and 0 < len(value) <= count)
    items = next((each for each in listed if any(isinstance(item, (dict, list)) for item in each)), [])
    found = {}
    for place, item in enumerate(items):
        index = item.get("index") if isinstance(item, dict) else None
        row = index if type(index) is int else place
        if row in rows and isinstance(item, (dict, str)) and not has_vectors(item):
            said = _of_json(item).message
            if said and (len(said) <= STRING or re.search(r"\s", said)):  # else most likely broken base64
                found[row] = said[:SHORT]
    return found


def wordless(response: Response) -> str:
    """What a body without vectors looks like; empty if it has some."""
    if len(response.body) > LONG:
        return ""
    try:
        body = _decoded(text_of_body(response))
    except (msgspec.DecodeError, RecursionError):
        return describe_body(response)
    return "" if has_vectors(body) else describe_body(response)


def describe_body(response: Response) -> str:
    """What a useless body looks like, in a few words that follow "it"."""
    text = text_of_body(response)
    if not text:
        told = _in_headers(response.headers)
        return f"is empty, but a header says {told[:SHORT]!r}" if told else "is empty"
    if re.match(r"<", text):
        return f"is {_prose(text).message[:SHORT]}"
    return f"starts with {shortened(text)!r}"


def shortened(text: str) -> str:
    """The start of a body: JSON without the length of its vectors and strings, anything else cut."""
    try:
        body = _brief(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return text[: SHORT * 2 // 3]
    whole = msgspec.json.encode(body).decode()
    return whole if len(whole) <= SHORT else whole[:SHORT] + "…"


def fine(value: Any, depth: int = DEPTH) -> bool:
    """Whether the value in an error's place means no error: nothing, false, zero, "success" …"""
    if isinstance(value, str):
        return re.fullmatch(_FINE, value.strip().rstrip(".!").lower()) is not None
    if isinstance(value, (dict, list)):
        within = value.values() if isinstance(value, dict) else value
        return not within or (depth > 0 and all(fine(each, depth - 1) for each in within))
    return not value or (_number(value) and 200 <= value < 300)  # noqa: PLR2004 (success, by RFC 9110)


def has_vectors(body: Any) -> bool:
    """Whether a body has an embedding: a longer list of numbers, a packed one, or a number under such a name."""
    for path, value in _walked(body):
        named = not path or re.search(_VECTOR, "/".join(path))
        if isinstance(value, list):
            some = value[:FEW]
            if (
                some
                and all(_number(each) for each in some)
                and (named or any(isinstance(each, float) for each in some))
            ):
                return True
        elif path and re.search(r"(?i)(embedding|base64|vector)s?$", path[-1]) and _packed_vector(value):
            return True
    return False


def _packed_vector(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/=_-]{8,}", value) is not None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def failed(body: Any) -> bool:
    """Whether a body says of itself that it is no success, even if it gives no reason."""
    signs = {"success", "ok", "issuccess", "succeeded"}
    return isinstance(body, dict) and any(
        (_plain(name) in signs and value is False)
        or (
            _plain(name) in {*signs, "status", "state", "object", "type", "result"}
            and isinstance(value, str)
            and re.fullmatch(r"error|err|fail(ed|ure)?|false|(un|not ?)success\w*", value.strip().lower()) is not None
        )
        or (_plain(name) in ("error", "errors", "err") and not fine(value))
        for name, value in body.items()
    )


_FINE = (
    r"|ok|okay|success\w*|succe\w+|complete[d]?|done|finished|normal|none|null|nil|false|no[_ ]?errors?|0+|2\d\d|200 ok"
    r"|(the )?(request|operation|call|query) (was |has )?(been )?(success\w*|succeeded|completed|processed)"
    r"( success\w*)?|\w*成功"
)
_VECTOR = r"(?i)embedding|vector|values|data|predictions|float|int8|binary"

_AROUND = " \t\r\n\f\v\0\ufeff"

# --- JSON ------------------------------------------------------------------------------------------------------------


def text_of_body(response: Response) -> str:
    """The body as text without the spaces around it: in UTF-8, UTF-16 or UTF-32, or else as its header says."""
    body = bytes(response.body)
    told = re.search(r"charset=[\"']?([\w.:-]+)", response.headers.get("content-type", ""), re.IGNORECASE)
    encodings = [json.detect_encoding(body), "utf-8", *([told[1]] if told else [])]
    for encoding in encodings:
        with suppress(UnicodeDecodeError, LookupError):
            if "\0" not in (text := body.decode(encoding).strip(_AROUND)) or encoding != encodings[0]:
                return text
    # One broken character among good ones, or none that is UTF-8: then most likely Windows' own encoding.
    good = body.decode("utf-8", "ignore")
    return body.decode("cp1252" if good.isascii() else "utf-8", "replace").strip(_AROUND)


def _decoded(text: str) -> Any:
    """The body as JSON: as it is, else the first event of a stream of events."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        event = (
            re.search(r"^data: ?([{\[\"].*)$", text, re.MULTILINE) if re.match(r"data:|event:|id:|:", text) else None
        )
        if event is None:
            raise
        return msgspec.json.decode(event[1])


def _of_json(body: Any, status: int = 0) -> ErrorBody:
    if isinstance(body, list) and body:  # Gemini wraps errors in a list
        texts = [each for each in body[:MOST] if isinstance(each, str)]
        body = "; ".join(texts) if isinstance(body[0], str) else body[0]
    found = _envelope(body)
    message = found.message
    if fine(message) or not re.search(r"[^\W\d_]", message):  # a number is no reason
        message = _words(body) or message
    elif not re.search(r"\s", message):  # a code, like OAuth's `error` beside its `error_description` (RFC 6749)
        said = _words(body) or message
        message = said if message in said else f"{message}: {said}"
    code, kind = found.code, found.kind.removeprefix("about:blank")  # RFC 9457: no kind
    if (within := _packed(message)) is not None:  # a gateway that puts the whole answer of another into its message
        message, code, kind = within.message, code or within.code, kind or within.kind
    return ErrorBody(message, code or _code(body, status), kind, body)


def _packed(message: str) -> ErrorBody | None:
    """What a message says that is JSON itself; None if it is not, or says nothing."""
    if not message.startswith(("{", "[", '"')):
        return None
    try:
        inner = msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return None
    found = ErrorBody(inner) if isinstance(inner, str) else _of_json(inner)
    return found if found.message else None


def _envelope(body: Any) -> ErrorBody:
    """What stands in the known places."""
    if not isinstance(body, dict):
        return ErrorBody(message=body if isinstance(body, str) else "", body=body)
    inner = body.get("error") or body.get("errors") or body.get("detail") or body.get("details")
    if isinstance(inner, list) and inner:  # texts (Hugging Face), {loc, msg} (FastAPI) or {code, message} (Cloudflare)
        one = inner[0] if isinstance(inner[0], dict) else {}
        message = "; ".join(filter(None, map(_item, inner)))
        return ErrorBody(message, _text(one, "code"), _text(one, "type"), body)
    if isinstance(inner, dict):
        message = ": ".join(filter(None, (_text(inner, "message", "detail", "error"), _relayed(inner))))
        return ErrorBody(message, _text(inner, "code"), _text(inner, "type", "status"), body)
    # `errorMessage` is IBM's IAM.
    message = _text(body, "message", "Message", "error", "detail", "reason", "msg", "errorMessage")
    code = _text(body, "code", "error_code", "errorCode")
    return ErrorBody(message, code, _text(body, "error_type", "type", "__type"), body)


def _relayed(inner: Mapping[str, Any]) -> str:
    """What the provider behind OpenRouter said: "Provider returned error" helps nobody."""
    metadata = inner.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return read_error_body(Response(0, {}, raw.encode())).message if isinstance(raw, str) else ""


def _text(body: Mapping[str, Any], *names: str) -> str:
    return next((str(body[name]) for name in names if _said(body.get(name))), "")


def _said(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""


def _item(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item) if _said(item) else ""
    where = item.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else _text(item, "field")  # the latter is Jina's
    message = _text(item, "msg", "message")
    return f"{place}: {message}" if place and message else message


# --- any envelope ----------------------------------------------------------------------------------------------------

# Names of texts for people, the most telling first; in small letters, without what joins words.
_ERROR = r"(error|err|fault|failure|exception|title|warning|statustext)s?$"
_TELLING = (
    r"(message|msg)s?$",
    r"(description|detail|reason|cause|explanation|faultstring|problem|diagnostic)s?$",
    _ERROR,
)
# What the user has sent, and what is for machines.
_NO_WORDS = (
    r"^(inputs?|texts?|prompts?|documents?|query|queries|sentences?|contents?|passages?|chunks?|instances?|usage"
    r"|meta|model\w*|object|url|uri|links?|docs?|documentation\w*|help|path|trace\w*|stack\w*|timestamp|\w*id|type|instance"
    r"|param|loc|field|version)$"
)


def _words(body: Any) -> str:
    """The text for people in any JSON: under the most telling name, else what reads like a sentence, else nothing."""
    found: dict[int, list[str]] = {}
    for path, value in _walked(body):
        if not isinstance(value, str) or fine(value) or re.match(r"\d{4}-\d\d-\d\d", value):  # a date is no reason
            continue
        names = [_plain(name) for name in path if name]
        rank = next(
            (place for place, words in enumerate(_TELLING) if names and re.search(words, names[-1])), len(_TELLING)
        )
        if rank == len(_TELLING):
            # As in {"errors": {"input": […]}}.
            own = next((place for place, name in enumerate(names) if re.search(_ERROR, name)), len(names))
            if not re.search(r"\w\W+\w", value) or any(re.match(_NO_WORDS, name) for name in names[:own]):
                continue
            rank -= own < len(names)
        texts = found.setdefault(rank, [])
        if value not in texts and len(texts) < MOST:
            texts.append(value if rank < 2 else value[:SHORT])  # noqa: PLR2004 (of the first two ranks)
    best = min(found, default=0)
    whole = [rank for rank in sorted(found) if any(re.search(r"\s", text) for text in found[rank])]
    if whole and best not in whole:  # codes: what a sentence says of them helps more
        return "; ".join(found[best] + found[whole[0]])[:EXCERPT]
    return "; ".join(found.get(best, ()))[:EXCERPT]


def _code(body: Any, status: int) -> str:
    """The code of a failure in any JSON: under a name that ends in "code", or an HTTP status under "status"."""
    for path, value in _walked(body):
        name = _plain(path[-1]) if path else ""
        if not _said(value) or fine(value) or len(str(value)) > STRING:
            continue
        if re.search(r"(code|errno|errorcode)$", name) or (
            name == "status" and re.fullmatch("[45][0-9][0-9]", str(value)) and str(value) != str(status)
        ):
            return str(value)
    return ""


def _walked(body: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a body with the names that lead to it, the shallow ones first; an item has its list's name."""
    level: list[tuple[tuple[str, ...], Any]] = [((), body)]
    seen = 0
    for _ in range(DEPTH):
        below: list[tuple[tuple[str, ...], Any]] = []
        for path, value in level:
            seen += 1
            if seen > NODES:
                return
            yield path, value
            if isinstance(value, dict):
                below += [((*path, str(name)), each) for name, each in value.items()]
            elif isinstance(value, list) and not (len(value) > FEW and isinstance(value[0], (int, float))):
                below += [(path, each) for each in value[:NODES]]
        level = below


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _brief(value: Any, depth: int = 6) -> Any:
    if isinstance(value, str):
        return value if len(value) <= STRING else value[:STRING] + "…"
    if isinstance(value, (dict, list)) and value and not depth:
        return "…"
    if isinstance(value, dict):
        return {_brief(name): _brief(each, depth - 1) for name, each in list(value.items())[:20]}
    if isinstance(value, list):
        return [_brief(each, depth - 1) for each in value[:FEW]] + (
            [f"… {len(value)} in all"] if len(value) > FEW else []
        )
    return value


# --- what is no JSON -------------------------------------------------------------------------------------------------


def _prose(text: str) -> ErrorBody:
    text = text[:LONG]
    if re.match(r"<(!doctype html|html|head|body)", text, re.IGNORECASE):
        title = re.search(r"<title[^<>]*>([^<]*)</title>", text, re.IGNORECASE | re.DOTALL)
        shown = re.sub(r"<(style|script|title)[^<>]*>.*?</\1>|<[^<>]+>", " ", text, flags=re.IGNORECASE | re.DOTALL)
        said = (" ".join(unescape(each).split()) for each in (title[1] if title else "", shown))
        return ErrorBody("an HTML page instead of JSON: " + ": ".join(filter(None, said))[:200])
    if re.match(r"<[?!\w]", text):
        text = re.sub(
            r"<!\[CDATA\[(.*?)\]\]>", lambda found: found[1].replace("<", "&lt;"), text[: EXCERPT * 10], flags=re.DOTALL
        )
        named = [
            {name: unescape(inner).strip()} for name, inner in re.findall(r"<(?:\w+:)?(\w+)[^<>]*>([^<]*)</", text)
        ]
        words = _words(named) or " ".join(unescape(re.sub(r"<[^<>]+>", " ", text)).split())[:200]
        return ErrorBody(f"XML instead of JSON: {words}", _code(named, 0))
    return ErrorBody(text[:SHORT] if text.startswith(("{", "[")) else text[:EXCERPT])  # cut JSON may be all vectors


def _in_headers(headers: Mapping[str, str]) -> str:
    """What the headers say: one whose name promises words, else why a key is refused (RFC 6750)."""
    for words in (*_TELLING[:2], r"(error|err|fault|failure)s?$"):
        for name, value in headers.items():
            if re.search(words, _plain(name)) and not fine(value):
                return unquote(value)[:EXCERPT]  # gRPC's are escaped
    challenge = headers.get("www-authenticate", "")
    told = re.search(r'error_description="([^"]+)"', challenge) or re.search(r'error="([^"]+)"', challenge)
    return told[1][:EXCERPT] if told else ""
