"""The contract a dialect fulfils, and the few helpers it needs.

A *dialect* says how to speak: three pure functions, `encode` (texts → request), `decode` (response → rows) and `explain` (a
refusal → the provider's message). A *host* says where and as whom: a row of data. Bytes go straight into the rows of the output
matrix: no reply is ever copied twice, and none is visible before it is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ._hints import NDArray
from ._refusal import inside, read
from ._rows import Given, Out, Reader, Vector, decoder_of, finite, matrix, normalise, parse, quantised
from ._types import Limits, ModelFacts, Options, Reply, Request, Response, bare
from .errors import ConfigError, DecodeError

JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json", "accept": "application/json"})
to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
T = TypeVar("T")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what a decoder raises: the last for endless brackets


class Codec(Protocol):
    """What the engine needs of a dialect. Pure: no clock, no socket, no state that changes.

    Three facts may stand beside them: `sends_dimensions` (True where left out), `sends_dtypes` (only float32 where left out) and
    `cuts` (`truncate="end"`; True where left out) say what the API honours itself. What it does not, the engine does on the client,
    and the codec's options come without it.

    Two more functions may be there. `probe() -> Request | None`: something to ask once before the first batch. `learn(response) -> Codec`:
    a codec that knows more after this response (a refused encoding, a cap); the engine then uses that one.
    """

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        ...

    def encode(self, texts: Sequence[str], options: Options) -> Request:
        """The request for these texts, without credentials. An option that cannot be honoured: ConfigError."""
        ...

    def decode(self, response: Response, options: Options, count: int, out: Out | None = None) -> Reply:
        """The rows of a successful response, in input order, checked; written into `out(width)` where given."""
        ...

    def explain(self, response: Response) -> str:
        """The provider's own message in a refusal; empty when there is none."""
        ...


# --- hosts -----------------------------------------------------------------------------------------------------------


class Secrets(Mapping[str, Any]):
    """Credentials (or what gives them) by name. They never show: not in a repr, not in a traceback's argument list."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The credential, without the exception that `Mapping` would make of one that is not there: every request asks."""
        return self._values.get(name, default)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"


def bearer(request: Request, credentials: Mapping[str, str], now: float) -> Request:  # noqa: ARG001 (the shape of `authorise`)
    """`Authorization: Bearer KEY`, or nothing at all without a key."""
    key = credentials.get("api_key")
    return with_headers(request, {"authorization": f"Bearer {key}"}) if key else request


def with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """The same request with more headers."""
    return Request(request.url, request.body, {**request.headers, **headers}, request.method)


def sendable(value: str) -> bool:
    """Whether a header can carry this: no control characters, nothing that is not ASCII."""
    return value.isascii() and value.replace("\t", " ").isprintable()


class Parameter(msgspec.Struct, frozen=True):
    """A keyword of `connect` that only this host takes.

    Attributes:
        variables: environment variables that may hold it, first one wins.
        required: without it nothing can be sent.
        secret: it is a credential: kept out of every repr, may be a callable, handed to `authorise`.
        key: it stands in for the API key (an access key, a token): one of the two is needed, and given by hand it silences
            the other's variables.
        choices: what it may be; empty: anything.
        help: one line on what it is.
    """

    variables: tuple[str, ...] = ()
    required: bool = False
    secret: bool = False
    key: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""


class Target(msgspec.Struct, frozen=True):
    """Where a codec speaks to: its host, model, base URL and the host's own parameters."""

    host: Host
    model: str
    base_url: str
    facts: ModelFacts | None = None
    parameters: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Target({self.host.name}:{self.model} at {bare(self.base_url)})"

    @property
    def limits(self) -> Limits:
        """The host's, and how long a text the model takes, where the catalogue knows it: not every API says so when it cuts."""
        tokens = self.facts.tokens if self.facts is not None else None
        return msgspec.structs.replace(self.host.limits, max_text_tokens=tokens) if tokens else self.host.limits

    def url(self, route: str) -> str:
        """The base URL with a route appended; a query in the base URL stays at the end."""
        base, mark, query = self.base_url.partition("?")
        return base.rstrip("/") + route + mark + query


def _as_given(base_url: str, target: Target) -> str:  # noqa: ARG001 (the shape of `locate`)
    return base_url


def filled(base_url: str, target: Target) -> str:
    """The host's own base URL with each `{name}` in it replaced by the parameter of that name; any other is used as given."""
    if base_url != target.host.base_url:
        return base_url
    for name in re.findall(r"{(\w+)}", base_url):
        value, declared = target.parameters.get(name), target.host.parameters[name]
        if value is None:
            where = f" or set {' or '.join(declared.variables)}" if declared.variables else ""
            msg = f"{target.host.name} needs {name} ({declared.help}): pass {name}={where}; or pass base_url="
            raise ConfigError(msg)
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):  # anything else could name another host
            msg = f"{name}={value!r}: it becomes part of {base_url}, so letters, digits, dots and hyphens only"
            raise ConfigError(msg)
        base_url = base_url.replace(f"{{{name}}}", value)
    return base_url


def belongs(name: str | None, domains: Collection[str]) -> bool:
    """True where a host name is one of the domains or lies below one; a `*` in a domain stands for one label."""
    labels = (name or "").lower().split(".")[::-1]
    wanted = [domain.split(".")[::-1] for domain in domains]
    return any(
        len(parts) <= len(labels) and all(part in ("*", label) for part, label in zip(parts, labels, strict=False))
        for parts in wanted
    )


class Grant(msgspec.Struct, frozen=True):
    """How a key is exchanged for a token that ends. Both functions are pure; the engine asks, keeps and renews.

    Attributes:
        ask: the request for a token, given the credentials; None where the key is a token already.
        read: the token in the answer, which then takes the key's place, and for how many seconds it holds.
    """

    ask: Callable[[Mapping[str, str]], Request | None]
    read: Callable[[Response], tuple[str, float]]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom: one row of data per provider.

    Attributes:
        name: what stands before the colon in "name:model".
        dialect: `dialect(target, **quirks)` makes the codec.
        base_url: where it lives; None when only the user can know.
        segment: path added to a base URL that has none.
        keys: environment variables that may hold the key, first one wins; empty: none is ever read.
        key_file: `key_file(environment)`, the path of a file that may hold the key where no variable does.
        key_required: refuse to start without a key (an explicit `base_url` lifts this).
        domains: hosts (and their subdomains) that a key from the environment may go to, besides loopback; see `belongs`.
        url_variables: environment variables that may hold the base URL.
        read_url: how such a variable is read, by the provider's own rules.
        locate: `locate(base_url, target)`, the last word on the base URL (Azure puts the deployment in the path).
        authorise: `authorise(request, credentials, now)`, pure; asked on every attempt, unless steady. The credentials hold the host's own
            parameters too: a signature names its region.
        steady: `authorise` looks at neither body nor clock: what it puts on one request serves the next. So it is with `bearer`.
        grant: how the key becomes a token, where the API takes none but tokens.
        parameters: further keywords of `connect`.
        quirks: keywords of the dialect.
        limits: what one request may hold.
        accepts_empty: an empty text is embedded rather than refused.
        timeout: seconds one attempt may take, unless the caller says otherwise.
        catalogue: which models of the catalogue live here (a family's name); empty: the host's own name.
        known_as: `known_as(model)`, the model's name in the catalogue (Bedrock's names may carry a region).
        down: what to say when nothing listens there.
    """

    name: str
    dialect: Callable[..., Codec]
    base_url: str | None = None
    segment: str = ""
    keys: tuple[str, ...] = ()
    key_file: Callable[[Mapping[str, str]], str] | None = None
    key_required: bool = False
    domains: tuple[str, ...] = ()
    url_variables: tuple[str, ...] = ()
    read_url: Callable[[str], str] = str
    locate: Callable[[str, Target], str] = _as_given
    authorise: Callable[[Request, Mapping[str, str], float], Request] = bearer
    steady: bool = False
    grant: Grant | None = None
    parameters: Mapping[str, Parameter] = {}
    quirks: Mapping[str, Any] = {}
    limits: Limits = Limits()
    accepts_empty: bool = False
    timeout: float = 120.0
    catalogue: str = ""
    known_as: Callable[[str], str] = str
    down: str = ""


# --- helpers of `encode` ---------------------------------------------------------------------------------------------


def compact(**fields: Any) -> dict[str, Any]:
    """The fields that have a value. Sending null is not leaving it out (wire reference 0.2, rule 1)."""
    return {name: value for name, value in fields.items() if value is not None}


def only(options: Options, host: str, **allowed: Collection[object]) -> None:
    """Raise ConfigError for an option whose value this host cannot honour; None is always allowed."""
    for name, values in allowed.items():
        value = getattr(options, name)
        if value is not None and value not in values:
            can = ", ".join(repr(each) for each in sorted(map(str, values))) or "leaving it out"
            msg = f"{host} cannot do {name}={value!r}; it takes {can}"
            raise ConfigError(msg)


def prefixed(texts: Sequence[str], options: Options, facts: ModelFacts | None) -> Sequence[str]:
    """The texts with the model family's prefix for this input type, if it has one that stands in the text."""
    prefix = _prefix(options, facts)
    return [prefix + text for text in texts] if prefix and facts is not None and not facts.prefix_field else texts


def prompt(options: Options, facts: ModelFacts | None) -> dict[str, str]:
    """The same prefix as the request field that takes it, where the provider puts it before the texts itself."""
    prefix = _prefix(options, facts).strip()
    return {facts.prefix_field: prefix} if prefix and facts is not None and facts.prefix_field else {}


def _prefix(options: Options, facts: ModelFacts | None) -> str:
    return facts.prefixes.get(options.input_type, "") if facts is not None and options.input_type else ""


def known_width(options: Options, facts: ModelFacts | None) -> int | None:
    """The width asked for; ConfigError where the catalogue knows that the model has no such width."""
    asked = options.dimensions
    if asked is None or facts is None or asked == facts.dimensions or asked in facts.widths or facts.dimensions is None:
        return asked
    msg = f"dimensions={asked}: {facts.name} has {widths(facts)}"
    raise ConfigError(msg)


def widths(facts: ModelFacts | None) -> str:
    """The widths of a model, in words."""
    if facts is None or (facts.dimensions is None and not facts.widths):
        return "no width that is known"
    some = facts.widths
    more = f"any from {some[0]} to {some[-1]}" if isinstance(some, range) else ", ".join(map(str, some))
    return " or ".join(filter(None, (str(facts.dimensions or ""), more))) + " components"


def parted(extra: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(these fields, the others) of `extra`: where a body says things per text, that is where they go."""
    return {name: extra[name] for name in names if name in extra}, {name: extra[name] for name in extra if name not in names}


def lone(texts: Sequence[str], host: str) -> str:
    """The one text, for a route that takes no more (a limit that `connect(limits=)` may have lifted)."""
    if len(texts) != 1:
        msg = f"{host} takes one text per request with this model, and got {len(texts)}: leave limits= out"
        raise ConfigError(msg)
    return texts[0]


def meanings(facts: ModelFacts | None, *extra: str) -> set[str]:
    """The input types a model can tell apart; `query` and `document` are always accepted."""
    return {"query", "document", *extra, *(facts.prefixes if facts is not None else ())}


# --- helpers of `decode` ---------------------------------------------------------------------------------------------


def parsed(decoder: msgspec.json.Decoder[T], response: Response) -> T:
    """The body as the type of a decoder (see `decoder_of`). A body that is an error raises that error; anything else unreadable, DecodeError."""
    try:
        return parse(response.body, decoder)
    except UNREADABLE as error:
        if (hidden := inside(response)) is not None:
            raise hidden from None
        start = bytes(response.body[:200]).decode("utf-8", "replace")
        msg = f"unreadable reply: {error}; it starts with {start!r}"
        raise DecodeError(msg) from None


class _Entry(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector
    index: int | None = None


class _Document(msgspec.Struct, frozen=True, gc=False):
    data: list[_Entry]
    index: int | None = None


class _Usage(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Listing(msgspec.Struct, Generic[T], frozen=True):
    data: list[T] = []
    model: str | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_flat = decoder_of(_Listing[_Entry])
_nested = decoder_of(_Listing[_Document])


def listing(response: Response, count: int, *, nested: bool = False) -> tuple[list[Vector], str, int | None]:
    """Vectors in input order, model and tokens of an OpenAI-like list: `data` of {embedding, index}, `model`, `usage`.

    Where nested, `data` holds documents, {data, index}, and each of them the embeddings of its chunks.
    """
    decoder: msgspec.json.Decoder[Any] = _nested if nested else _flat
    reply = parsed(decoder, response)
    if not reply.data and reply.error is not None and (error := inside(response)) is not None:
        raise error
    if nested:
        entries = [entry for document in _sorted(reply.data) for entry in _sorted(document.data)]
    else:
        entries = reply.data if len(reply.data) != count else _sorted(reply.data)  # a wrong number is found by `matrix`
    usage = reply.usage or _Usage()
    tokens = usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    return [entry.embedding for entry in entries], reply.model or "", tokens


def _sorted(items: list[Any]) -> list[Any]:
    if len(items) == 1 and not items[0].index:
        return items
    order = in_order([item.index for item in items], len(items))
    return [items[place] for place in order] if order else items


def in_order(indices: list[int | None], count: int) -> list[int] | None:
    """The order that puts rows given with these indices into input order; None: they are already in it.

    Missing everywhere is taken as in order; anything else but a permutation of 0..count-1 is a DecodeError.
    """
    if indices == list(range(count)) or not any(index is not None for index in indices):
        return None
    if sorted(index for index in indices if index is not None) != list(range(count)):
        msg = f"the reply's indices are not 0 to {count - 1}, each once: {_brief(indices)}"
        raise DecodeError(msg)
    return sorted(range(count), key=lambda place: indices[place] or 0)


def _brief(values: Sequence[object], most: int = 8) -> str:
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")


def counted(response: Response, header: str) -> int | None:
    """The number in a header; None where it holds none."""
    text = response.headers.get(header, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 (digits of 64 bits)


def unpacked(vector: Given) -> bytes | NDArray[Any]:
    """What one vector holds, for a dialect that has to look: the bytes inside base64, or the numbers as float64."""
    return Reader()(vector)


def pooled(tokens: Sequence[Given], how: str) -> NDArray[Any]:
    """One vector for a text out of those of its tokens, given without padding: their mean, the first ("cls") or the last.

    Raises:
        DecodeError: there is none, or they are of unequal width.
    """
    import numpy as np

    rows = [np.asarray(unpacked(token)) for token in tokens]
    if not rows or len(set(map(len, rows))) > 1:
        msg = f"a text came back as {len(rows)} token vectors{' of unequal width' if rows else ''}"
        raise DecodeError(msg)
    if how != "mean":
        return rows[{"cls": 0, "last": -1}[how]]
    with np.errstate(all="ignore"):  # an infinity is found where every value is looked at
        mean: NDArray[Any] = np.mean(rows, axis=0)
    return mean


def levelled(rows: NDArray[Any], options: Options, facts: ModelFacts | None) -> None:
    """Make unit length, in place, what a provider has cut to width and left at that (part 2, C5)."""
    if options.dimensions not in (None, facts and facts.dimensions) and options.normalize is not False:
        normalise(rows)


__all__ = [
    "JSON",
    "UNREADABLE",
    "Codec",
    "Given",
    "Grant",
    "Host",
    "Limits",
    "ModelFacts",
    "Options",
    "Out",
    "Parameter",
    "Reply",
    "Request",
    "Response",
    "Secrets",
    "Target",
    "Vector",
    "bearer",
    "belongs",
    "compact",
    "counted",
    "decoder_of",
    "filled",
    "finite",
    "in_order",
    "inside",
    "known_width",
    "levelled",
    "listing",
    "lone",
    "matrix",
    "meanings",
    "normalise",
    "only",
    "parse",
    "parsed",
    "parted",
    "pooled",
    "prefixed",
    "prompt",
    "quantised",
    "read",
    "sendable",
    "to_json",
    "unpacked",
    "widths",
    "with_headers",
]
