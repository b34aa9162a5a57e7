"""Credentials put on a request, on every attempt."""

from __future__ import annotations

import math
import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from .._types import Request, Response
from ..codec import Secrets, Target, bearer, with_headers
from ..errors import ConfigError
from .credential_check import flaw
from .credentials import KeyFile, Variable
from .headers import asked, asked_headers
from .redaction import Redactor, secrets_in
from .token_exchange import TokenCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import anyio

    from .exchange import Exchange

    Source = str | Callable[[], str | Awaitable[str]]

    Asks = Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]


class Signer:
    """Puts the credentials on a request, at every attempt, since tokens expire. Each is remembered for redaction."""

    def __init__(
        self,
        target: Target,
        sources: Mapping[str, Source],
        headers: Mapping[str, str],
        *,
        ask: Mapping[str, Asks] | None = None,
        timeout: float = math.inf,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.redactor = Redactor()
        self._timeout = timeout  # seconds for a callable of the caller's
        self._now = now
        self._clock = clock
        self._host = target.host
        self._public = target.parameters
        self._tokens = (
            TokenCache(self._host.token_exchange, self._host.name) if self._host.token_exchange is not None else None
        )
        self._sources = sources
        self._headers = headers
        self._ask_headers = ask or Secrets({})
        self._fixed = all(isinstance(source, str) for source in sources.values())
        # These are read anew when unpickled.
        kept = [source for source in sources.values() if isinstance(source, (Variable, KeyFile))]
        self._gone = [source.name for source in kept if not source]
        self._unfit = [f"the key in {source.name} {flaw(source)}" for source in kept if source and flaw(source)]
        self._secrets = Secrets({name: source for name, source in sources.items() if isinstance(source, str)})
        self._known = Secrets({**self._public, **self._secrets})
        steady = self._host.static_auth or self._host.authorize is bearer
        self._steady = (
            steady
            and self._fixed
            and not self._ask_headers
            and self._tokens is None
            and not self._gone
            and not self._unfit
        )
        # The last request without its body, before and after. One tuple: several loops may ask.
        self._last: tuple[Request, Request] | None = None

    def on(self, exchange: Exchange) -> Callable[[Request], Awaitable[Request]]:
        """What authorizes on one event loop: this, able to ask for a token where the host takes one for its key."""
        if self._tokens is None:
            return self
        import anyio

        return partial(self, exchange=exchange, turn=anyio.Lock())

    async def __call__(
        self, request: Request, exchange: Exchange | None = None, turn: anyio.Lock | None = None
    ) -> Request:
        if self._steady and self._last is not None:
            bare, signed = self._last
            if request.headers == bare.headers and request.url == bare.url:
                return Request(signed.url, request.body, signed.headers, request.method)
        return await self._sign(request, exchange, turn)

    async def _sign(self, request: Request, exchange: Exchange | None, turn: anyio.Lock | None) -> Request:
        if self._gone:  # unpickled where it is not set
            msg = f"the key comes from {' and '.join(self._gone)}, where there is none in this process"
            raise ConfigError(msg)
        if self._unfit:
            raise ConfigError(self._unfit[0])
        if not self._fixed:
            self._secrets = Secrets(
                {name: await _asked(name, source, self._timeout) for name, source in self._sources.items()}
            )
            self._known = Secrets({**self._public, **self._secrets})
        known = self._known
        if self._tokens is not None and exchange is not None and turn is not None and "api_key" in known:
            self.redactor.add(self._secrets.values())
            known = Secrets(await self._tokens.authorize(known, partial(self._ask, exchange), turn, self._clock))
        # The caller's own headers go under the signature, and win.
        own = self._headers
        for ask in self._ask_headers.values():
            own = Secrets({**own, **await asked_headers(ask, self._timeout)})
        bare = with_headers(request, own) if own else request
        signed = self._host.authorize(bare, known, self._now())
        signed = with_headers(signed, own) if own else signed
        last = self._last
        if last is None or signed.headers != last[1].headers or signed.url != last[1].url:
            kept = MappingProxyType(dict(signed.headers))  # an exchange may change what it is given
            self._last = Request(request.url, headers=request.headers), Request(signed.url, headers=kept)
            self.redactor.add((*self._secrets.values(), known.get("api_key", "")))
            self.redactor.add(secrets_in(signed.headers, signed.url))
        return signed

    def sent_to(self, request: Request) -> str:
        """Where a request went: a key may belong to another host."""
        return self._last[1].url if self._last is not None and self._last[0].url == request.url else request.url

    async def _ask(self, exchange: Exchange, request: Request) -> Response:
        response = await exchange(request)
        return response if response.ok else self.redactor.redact_response(response)

    def renew(self) -> bool:
        """True where the token was refused for its age, and the next attempt comes with a new one."""
        return self._tokens is not None and self._tokens.drop(self._clock())


async def _asked(name: str, source: Source, seconds: float) -> str:
    value = source if isinstance(source, str) else await asked(f"the function that gives {name}", source, seconds)
    text = value.strip() if isinstance(value, str) else ""
    kind = type(value).__name__
    wrong = flaw(text)
    if not wrong:
        return text
    what = f"a string that {wrong}" if text else f"{kind}; it must return a non-empty string"
    del value, text  # it may be a key all the same, and a traceback can show what a frame holds
    msg = f"the callable given as {name} returned {what}"
    raise ConfigError(msg)
