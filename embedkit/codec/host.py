"""A host as data: its address, credentials, parameters and limits; and helpers for its functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from .._types import Limits, ModelFacts, Request, Response, safe_url
from ..errors import ConfigError
from .contract import UNREADABLE, Codec


class Secrets(Mapping[str, Any]):
    """Credentials (or what gives them) by name. They never show: not in a repr, not in a traceback's argument list."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The credential, or the default. Every request asks, so no exception is made of a missing one."""
        return self._values.get(name, default)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"


def bearer(request: Request, credentials: Mapping[str, str], now: float) -> Request:  # noqa: ARG001 (an `authorize`)
    """`Authorization: Bearer KEY`, or nothing at all without a key."""
    key = credentials.get("api_key")
    return with_headers(request, {"authorization": f"Bearer {key}"}) if key else request


def with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    """The same request with more headers."""
    return Request(request.url, request.body, {**request.headers, **headers}, request.method)


def is_header_safe(value: str) -> bool:
    """Whether a header can carry this: no control characters, nothing that is not ASCII."""
    return value.isascii() and value.replace("\t", " ").isprintable()


class Parameter(msgspec.Struct, frozen=True):
    """A keyword of `connect` that only this host takes.

    Attributes:
        variables: environment variables that may hold it, first one wins.
        required: nothing can be sent without it.
        secret: it is a credential: kept out of every repr, may be a callable, handed to `authorize`.
        key: it replaces the API key (an access key, a token): one of the two is needed, and if it is passed, the
            variables of the other are not read.
        choices: what it may be; empty: anything.
        takes: its types, of str, bool, int, float, dict and list. If str is not among them, text (of an environment
            variable, say) is read as JSON.
        help: what it is, in a few words.
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
    """What a codec sends requests to.

    Attributes:
        host: its row.
        model: as the caller names it.
        base_url: where to; `url` appends a route.
        facts: what the catalog knows of the model; None where nothing.
        parameters: the host's own keywords of `connect`.
    """

    host: Host
    model: str
    base_url: str
    facts: ModelFacts | None = None
    parameters: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        declared = self.host.parameters
        read = {
            name: declared[name].read(name, value) if name in declared else value
            for name, value in self.parameters.items()
        }
        msgspec.structs.force_setattr(self, "parameters", read)

    def __repr__(self) -> str:
        return f"Target({self.host.name}:{self.model} at {safe_url(self.base_url)})"

    @property
    def limits(self) -> Limits:
        """The host's limits, and the catalog's limit of a text: not every API says so when it cuts one."""
        tokens = self.facts.tokens if self.facts is not None else None
        return msgspec.structs.replace(self.host.limits, max_text_tokens=tokens) if tokens else self.host.limits

    @property
    def has_widths(self) -> bool:
        """Whether the model has more widths than one; True of a model that the catalog does not know."""
        return self.facts is None or bool(self.facts.widths)

    def url(self, route: str) -> str:
        """The base URL with a route appended; a query in the base URL stays at the end."""
        base, mark, query = self.base_url.partition("?")
        return base.rstrip("/") + route + mark + query


def _as_given(base_url: str, target: Target) -> str:  # noqa: ARG001 (the shape of `resolve_url`)
    return base_url


def fill_url(base_url: str, target: Target) -> str:
    """The host's own base URL with each `{name}` replaced by that parameter; another URL is used as given."""
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


def host_matches(name: str | None, domains: Collection[str]) -> bool:
    """Whether a host name is one of the domains or a subdomain of one; a `*` in a domain stands for one label."""
    labels = (name or "").lower().split(".")[::-1]
    wanted = [domain.split(".")[::-1] for domain in domains]
    return any(
        len(parts) <= len(labels) and all(part in ("*", label) for part, label in zip(parts, labels, strict=False))
        for parts in wanted
    )


class TokenExchange(msgspec.Struct, frozen=True):
    """How a key is exchanged for a token that expires. Both functions are pure; the engine sends, keeps and renews.

    Attributes:
        request: the request for a token, given the credentials; None where the key is a token already.
        parse: the token in the answer, which then takes the key's place, and for how many seconds it holds.
    """

    request: Callable[[Mapping[str, str]], Request | None]
    parse: Callable[[Response], tuple[str, float]]


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One row of data per provider: address, credentials, limits.

    Attributes:
        name: what stands before the colon in "name:model".
        dialect: `dialect(target, **quirks)` makes the codec.
        base_url: its address; None if only the user knows it.
        version_path: path added to a base URL that has none.
        routes: what the dialect appends to a base URL, and other routes of this API that users copy: taken off the
            end of a given URL. What "/models/{model}:{verb}" names must agree with the model or one of `parameters`;
            `{model*}` may hold slashes.
        key_variables: environment variables that may hold the key, first one wins; empty: none is ever read.
        key_file: `key_file(environment)`, the path of a file that may hold the key where no variable does.
        key_required: refuse to start without a key (an explicit `base_url` lifts this).
        own_domains: hosts (and their subdomains) that may get a key from the environment, besides loopback; see
            `host_matches`.
        url_variables: environment variables that may hold the base URL.
        read_url: how such a variable is read, by the provider's own rules.
        resolve_url: `resolve_url(base_url, target)`, the final base URL (Azure puts the deployment in the path).
        authorize: `authorize(request, credentials, now)`, pure; called on every attempt, unless `static_auth`. The
            credentials hold the host's own parameters too: a signature names its region.
        static_auth: `authorize` looks at neither body nor clock, so its headers serve the next request too. `bearer`
            is always so.
        token_exchange: how the key becomes a token, where the API takes none but tokens.
        parameters: further keywords of `connect`.
        quirks: keywords of the dialect.
        limits: what one request may hold.
        accepts_empty: an empty text is embedded rather than refused.
        timeout: seconds one attempt may take, unless the caller says otherwise.
        loading: seconds that a server may take to load its model: while it says so with a 503, it is asked again
            every few seconds.
        start: requests in flight at first, before anything is known of the endpoint; a bulk call begins with 8 all
            the same.
        ceiling: most requests in flight, however well it answers.
        catalog: which models of the catalog live here (a family's name); empty: the host's own name.
        catalog_name: `catalog_name(model)`, the model's name in the catalog (Bedrock's names may carry a region).
        unreachable_hint: what to say when nothing listens there.
        batches: `batches(codec)`, what its API for batch jobs is asked (a `Batches`); or why embedkit uses none.
    """

    name: str
    dialect: Callable[..., Codec]
    base_url: str | None = None
    version_path: str = ""
    routes: tuple[str, ...] = ("/embeddings",)
    key_variables: tuple[str, ...] = ()
    key_file: Callable[[Mapping[str, str]], str] | None = None
    key_required: bool = False
    own_domains: tuple[str, ...] = ()
    url_variables: tuple[str, ...] = ()
    read_url: Callable[[str], str] = str
    resolve_url: Callable[[str, Target], str] = _as_given
    authorize: Callable[[Request, Mapping[str, str], float], Request] = bearer
    static_auth: bool = False
    token_exchange: TokenExchange | None = None
    parameters: Mapping[str, Parameter] = {}
    quirks: Mapping[str, Any] = {}
    limits: Limits = Limits()
    accepts_empty: bool = False
    timeout: float = 120.0
    loading: float = 0.0
    start: int = 8
    ceiling: int = 64
    catalog: str = ""
    catalog_name: Callable[[str], str] = str
    unreachable_hint: str = ""
    batches: Callable[[Any], Any] | str = "no page describes batch jobs of it for embeddings"
