"""A Qdrant server for one test: the routes that a sink asks, over a loopback socket, kept by the client's local mode.

There is no package with the real server. The bodies are read by the client's own models, so that what is no request of
Qdrant is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Any

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer()

    do_PUT = do_POST = do_PATCH = do_GET

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append((self.command, self.path, len(body), self.headers.get("api-key")))
        wanted = self.server.key
        status, result = 401, None
        if self.server.troubles:
            status = self.server.troubles.pop(0)
        elif wanted is None or self.headers.get("api-key") == wanted:
            with self.server.lock:
                status, result = self._done(
                    self.path.partition("?")[0].strip("/").split("/"), json.loads(body or "null")
                )
        said = {"result": result, "status": "ok", "time": 0.0}
        if status != 200:
            said = {"status": {"error": f"refused, with the key {self.headers.get('api-key')}"}, "time": 0.0}
        text = json.dumps(said if self.path != "/" else {"title": "qdrant", "version": "1.16.0"}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _done(self, path, body):  # noqa: PLR0911 (a route each)
        from qdrant_client import models

        base, name = self.server.base, path[1] if len(path) > 1 else ""
        there = bool(name) and base.collection_exists(name)
        match (self.command, path[2:]):
            case ("GET", ["exists"]):
                return 200, {"exists": there}
            case (_, []) if path == [""]:
                return 200, None
            case ("PUT", []) if not there:
                given = models.CreateCollection.model_validate(body)
                base.create_collection(name, vectors_config=given.vectors, metadata=given.metadata)
                return 200, True
            case ("PUT", []):
                return 409, None
            case _ if not there:
                return 404, None
            case ("GET", []):
                return 200, json.loads(base.get_collection(name).model_dump_json())
            case ("PATCH", []):
                base.update_collection(name, metadata=models.UpdateCollection.model_validate(body).metadata)
                return 200, True
            case ("PUT", ["points"]):
                base.upsert(name, models.PointsList.model_validate(body).points)
                return 200, {"operation_id": 0, "status": "completed"}
            case ("POST", ["points"]):
                given = models.PointRequest.model_validate(body)
                found = base.retrieve(name, given.ids, with_payload=given.with_payload)
                return 200, [json.loads(point.model_dump_json()) for point in found]
        return 404, None


@contextmanager
def serving(key: str | None = None) -> Iterator[Any]:
    """A server on loopback. Its `seen` has (method, path, bytes, key) of every request; its `base` is what it holds."""
    from qdrant_client import QdrantClient

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.base, server.key, server.seen, server.lock = QdrantClient(":memory:"), key, [], Lock()
    server.troubles = []  # statuses of the next answers
    server.url = f"qdrant:http://127.0.0.1:{server.server_port}#embeddings"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        server.base.close()
