"""An OpenAI-compatible API on loopback that does as the test says:
holds a reply, refuses a text, fails once. For processes of their own.
"""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


def vector(text: str) -> list[float]:
    """The embedding of a text here: three numbers that tell texts apart."""
    return [len(text), sum(map(ord, text)) % 1000, 0.5]


class Api:
    """Answers `/v1/embeddings` with `vector`; a text with BAD in it is refused.

    Attributes:
        script: (status, headers, body) to answer with first, before it is asked for vectors.
        hold_after: requests answered before replies are held back.
        held: set once a reply is held back.
        release: set it, and held replies go out.
        context: of TLS, to speak that.
        refusal: what it says of a text it refuses.
        bodies, keys: of the requests so far.
    """

    def __init__(
        self,
        *script: tuple[int, dict[str, str], object],
        hold_after: int = 10**9,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.script = list(script)
        self.hold_after = hold_after
        self.held, self.release = threading.Event(), threading.Event()
        self.refusal = "the text is not to my liking"
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": self}))
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, str], object]:
        """What to say to a request."""
        with self._lock:
            self.bodies.append(body)
            self.keys.append(key)
            if self.script:
                return self.script.pop(0)
            late = len(self.bodies) > self.hold_after
        if late:
            self.held.set()
            self.release.wait()
            if self.script:  # given meanwhile
                return self.script.pop(0)
        texts = body["input"]
        if any("BAD" in text for text in texts):
            return 400, {}, {"error": {"message": self.refusal, "code": "invalid_input"}}
        data = [{"index": row, "embedding": vector(text)} for row, text in enumerate(texts)]
        tokens = sum(len(text.split()) for text in texts)
        return 200, {}, {"data": data, "model": body["model"], "usage": {"prompt_tokens": tokens}}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, headers, answer = self.api.answer(body, self.headers.get("authorization"))
        raw = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "content-type": "application/json", "content-length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(raw)
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
