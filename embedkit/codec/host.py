"""Where a provider is and as whom we come, as data; and the helpers of its dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from .._hints import NDArray
from .._types import Limits, ModelFacts, Options, Reply, Request, Response, bare
from ..errors import ConfigError, DecodeError
from .error_body import looks
from .error_mapping import inside
from .vector_math import normalise
from .vectors import Given, Missing, Out, Reader, Vector, decoder_of, decoder_of_any, parse

JSON: Mapping[str, str] = MappingProxyType({"content-type": "application/json", "accept": "application/json"})
to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
T = TypeVar("T")
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what a decoder raises: the last for endless brackets


class Codec(Protocol):
    """What the engine needs of a dialect. Pure: no clock, no socket, no state that changes.

    Four facts may stand beside them: `sends_dimensions` (True where left out), `sends_dtypes` (only float32 where left out) and
    `cuts` (`truncate="end"`; True where left out) say what the API honours itself. What it does not, the engine does on the client,
    and the codec's options come without it. `joins` says where a vector depends on the other texts of its request (late chunking,
    contextualised models): the fields of `extra` that make it so, or True for always. Then the texts of a call are one request, each is
    sent, and nothing of it is split, shared with other calls or kept in a cache.

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
        takes: of which kinds it is, of str, bool, int, float, dict and list. Where str is not among them, text (of an environment
            variable, say) is read as JSON.
        help: one line on what it is.
    """

    variables: tuple[str, ...] = ()
    required: bool = False
    secret: bool = False
    key: bool = False
    choices: tuple[str, ...] = ()
    takes: tuple[type, ...] = (str,)
    help: str = ""

    def spelled(self, text: str) -> Any:
        """What a text from outside Python stands for: JSON of a kind that the parameter takes, else the text itself."""
        try:
            value = msgspec.json.decode(text.lower() if bool in self.takes else text)
        except (*UNREADABLE, UnicodeEncodeError):
            return text
        return value if self._is_one(value) else text

    def read(self, name: str, value: Any) -> Any:
        """The value, if it is of a kind that the parameter takes; ConfigError says which it takes."""
        if isinstance(value, str) and str not in self.takes:
            value = self.spelled(value)
        if not self._is_one(value):
            from reprlib import repr as brief

            kinds = " or ".join(_KINDS[kind][1] for kind in self.takes)
            msg = f"{name}={brief(value)}: it takes {kinds}{f' ({self.help})' if self.help else ''}"
            raise ConfigError(msg)
        return value

    def _is_one(self, value: Any) -> bool:
        if isinstance(value, bool):
            return bool in self.takes
        return any(isinstance(value, _KINDS[kind][0]) for kind in self.takes if kind is not bool)


_KINDS: dict[type, tuple[Any, str]] = {
    str: (str, "text"), bool: (bool, "true or false"), int: (int, "a whole number"), float: ((int, float), "a number"),
    dict: (Mapping, "an object of names and values"), list: ((list, tuple), "a list"),
}  # fmt: skip


class Target(msgspec.Struct, frozen=True):
    """Where a codec speaks to: its host, model, base URL and the host's own parameters."""

    host: Host
    model: str
    base_url: str
    facts: ModelFacts | None = None
    parameters: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        declared = self.host.parameters
        read = {
            name: declared[name].read(name, value) if name in declared else value for name, value in self.parameters.items()
        }
        msgspec.structs.force_setattr(self, "parameters", read)

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
        routes: what the dialect puts behind a base URL, and what else of this API's people copy with it: taken off the end of a URL
            that is given. "/models/{model}:{verb}" names what it must agree with: the model, or one of `parameters`; `{model*}` may hold slashes.
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
        loading: seconds that a server may take to load its model: as long as it says so with a 503 it is asked again, every few seconds.
        start: requests in flight to begin with, before anything is known of the endpoint; a bulk call begins with 8 all the same.
        ceiling: most requests in flight, however well it answers.
        catalogue: which models of the catalogue live here (a family's name); empty: the host's own name.
        known_as: `known_as(model)`, the model's name in the catalogue (Bedrock's names may carry a region).
        down: what to say when nothing listens there.
    """

    name: str
    dialect: Callable[..., Codec]
    base_url: str | None = None
    segment: str = ""
    routes: tuple[str, ...] = ("/embeddings",)
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
    loading: float = 0.0
    start: int = 8
    ceiling: int = 64
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
        if isinstance(error, msgspec.ValidationError):  # one embedding may be none; the others are
            with suppress(*UNREADABLE):
                return parse(response.body, decoder_of_any(decoder.type))
        if (hidden := inside(response)) is not None:
            raise hidden from None
        failure = DecodeError(f"unreadable reply: {error}; it {looks(response)}")
        failure.once_more = not isinstance(error, msgspec.ValidationError)  # that is JSON, of another shape
    raise failure


class _Entry(msgspec.Struct, frozen=True, gc=False):
    embedding: Vector | None = None
    index: Any = None


class _Document(msgspec.Struct, frozen=True, gc=False):
    data: list[_Entry]
    index: Any = None


class _Listing(msgspec.Struct, Generic[T], frozen=True):
    data: list[T | None] | None = None
    model: Any = None
    usage: Any = None


_flat = decoder_of(_Listing[_Entry])
_nested = decoder_of(_Listing[_Document])
_NO_ENTRY, _NO_DOCUMENT = _Entry(), _Document([])


def listing(response: Response, count: int, *, nested: bool = False) -> tuple[list[Given], str, int | None]:
    """Vectors in input order, model and tokens of an OpenAI-like list: `data` of {embedding, index}, `model`, `usage`.

    Where nested, `data` holds documents, {data, index}, and each of them the embeddings of its chunks.
    """
    decoder: msgspec.json.Decoder[Any] = _nested if nested else _flat
    reply = parsed(decoder, response)
    data = reply.data or []
    if not data and (error := inside(response)) is not None:
        raise error
    if nested:
        documents = [(document or _NO_DOCUMENT) for document in data]
        entries = [
            entry for document in in_place(documents, len(data)) for entry in in_place(document.data, len(document.data))
        ]
    else:
        entries = in_place(data if None not in data else _without_null(data), count)
    tokens = tokens_in(reply.usage, "prompt_tokens", "total_tokens")
    return [entry.embedding for entry in entries], text_of(reply.model), tokens


def _without_null(data: list[Any]) -> list[Any]:
    """A list in which null stands for some entries: their places are those that the others' indices leave out, or where they stand."""
    there = [entry for entry in data if entry is not None]
    return there if any(entry.index is not None for entry in there) else [entry or _NO_ENTRY for entry in data]


def in_place(items: list[Any], count: int) -> list[Any]:
    """Items in input order, by their `index`; a `Missing` where the others' indices name one. Another number comes as it is."""
    if len(items) == 1 == count or len(items) > count or not items:
        return items  # a wrong number is found by `matrix`
    places = _places([item.index for item in items], count)
    if places is None:
        return items
    found: list[Any] = [Missing] * count
    for place, item in zip(places, items, strict=True):
        found[place] = item
    return found


def in_order(indices: Sequence[Any], count: int) -> list[int] | None:
    """The order that puts `count` rows given with these indices into input order; None: they are already in it. See `in_place`."""
    places = _places(indices, count)
    return None if places is None else sorted(range(count), key=places.__getitem__)


def _places(indices: Sequence[Any], count: int) -> list[int] | None:
    """The place of each row, of `count` at most, by what stands as its index; None: they are in order, as far as one can tell.

    An index may be written as text. One that is left out beside others is 0, as serialisers that leave out zeros write it. With `count`
    rows, one constant offset does not matter; with fewer, none of which is 0, nobody knows from where they count, and so who is
    missing. Left out everywhere: in order. Anything else but different numbers from 0 to count-1 is a DecodeError.
    """
    whole = list(range(count))
    if indices == whole or all(index is None for index in indices):
        return None
    numbers = [0 if index is None else whole_number(index) for index in indices]
    known = [number for number in numbers if number is not None]
    left_out, full = sum(index is None for index in indices), len(indices) == count
    offset = max(0, min(known, default=0)) if full and not left_out else 0
    places = [number - offset for number in known]
    if len(known) < len(indices) or left_out > 1 or len(set(places)) < len(places) or not set(places) <= set(whole):
        msg = f"the reply's index numbers are not 0 to {count - 1}, each once: {_brief(indices)}"
        raise DecodeError(msg)
    return None if places == whole or (not full and 0 not in places) else places


def whole_number(value: Any) -> int | None:
    """A whole number, however it is written: 3, 3.0 or "3". None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def tokens_in(usage: Any, *names: str) -> int | None:
    """The first of these fields of a reply's usage that holds a number of tokens; None where none does. Never an error."""
    for name in names if isinstance(usage, dict) else ():
        found = usage.get(name)
        number = found if type(found) is int else whole_number(found)
        if number is not None and number >= 0:
            return number
    return None


def text_of(value: Any) -> str:
    """A text that a reply need not have, like the model's name; empty where it is none."""
    return value if isinstance(value, str) else ""


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
    if any(row.ndim != 1 for row in rows):
        msg = "a text came back as token vectors in base64, whose type nobody says"
        raise DecodeError(msg)
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
