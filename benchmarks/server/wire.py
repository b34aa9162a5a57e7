"""The other end of the wire: rows to answer with, the C server
that answers, its certificate, and the floor beneath every client.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent.parent
BUILD = HERE.parent / "build" / "bench"
VALUES = 1 << 20  # components of all rows together: what the server keeps in its cache of pages


def count_of(width: int) -> int:
    """How many different rows there are of this width."""
    return max(64, min(1024, VALUES // width))


def rows(width: int) -> Any:
    """The rows of this width, unit length; text number i has row i modulo their number."""
    made = np.random.default_rng(width).standard_normal((count_of(width), width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def texts(count: int, start: int = 0) -> list[str]:
    """Texts that name their row, the length of a short sentence."""
    return [f"@{number} how long is the coast of Britain, and who asks?" for number in range(start, start + count)]


def prefix(width: int, style: str = "short") -> Path:
    """The encoded rows, one per line, written on first use: base64, and text as most servers print floats.

    "short" is the shortest text that names the float32 (vLLM, TEI, Ollama), "double" that of the same value as a double
    (Python servers), "pretty" is short on lines of its own, as OpenAI and Google print.
    """
    path = BUILD / f"rows-{width}-{style}"
    if not Path(f"{path}.text").exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        made = rows(width)
        Path(f"{path}.base64").write_bytes(
            b"".join(b'"%b"\n' % base64.b64encode(row.astype("<f4").tobytes()) for row in made)
        )
        between = {"short": ",", "double": ",", "pretty": ",\r        "}[style]  # the server's rows end at a line feed
        pick = np.ndarray.tolist if style == "double" else list
        with Path(f"{path}.text.new").open("w") as file:
            file.writelines(f"[{between.join(map(str, pick(row)))}]\n" for row in made)
        Path(f"{path}.text.new").rename(f"{path}.text")
    return path


def built(name: str) -> Path:
    """A C program of this folder, compiled when its source is newer; with OpenSSL where its headers are."""
    source, program = Path(__file__).parent / f"{name}.c", BUILD / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    plain = ["cc", "-O2", str(source), "-o", str(program)]
    secure = [*plain, "-DWITH_TLS", "-lssl", "-lcrypto"]
    if name != "server" or subprocess.run(secure, capture_output=True, check=False).returncode:
        subprocess.run(plain, check=True)
    return program


def certificate() -> tuple[Path, Path, Path]:
    """(CA, certificate, key) for localhost, and for the one client whose address cannot be changed."""
    ca, cert, key = (BUILD / f"{name}.pem" for name in ("ca", "cert", "key"))
    if not key.exists():
        import trustme

        BUILD.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1", "api.openai.com")
        authority.cert_pem.write_to_path(ca)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
    return ca, cert, key


def take(size: int) -> None:
    """Touch so many bytes of memory and give them back.

    A virtual machine lends free pages to its host, and who takes one then waits for the host too:
    up to thirty times as long, of which a client that runs second has less. After this, for a
    second or two, pages cost everyone what they should.
    """
    np.ones(min(size, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2), np.uint8)


class Server:
    """A running server: where it is, and what it has done so far."""

    def __init__(self, port: int, *, tls: bool) -> None:
        self.port = port
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    def stats(self) -> dict[str, float]:
        """Requests, texts, connections, requests waiting at most at once, and CPU milliseconds since it started."""
        import ssl

        context = ssl.create_default_context(cafile=str(certificate()[0])) if self.tls else None
        with urllib.request.urlopen(f"{self.url}/stats", context=context, timeout=30) as reply:  # noqa: S310 (our own server)
            found: dict[str, float] = json.load(reply)
        return found


@contextlib.contextmanager
def server(
    width: int,
    *,
    style: str = "short",
    latency: float = 0.0,
    stall_every: int = 0,
    stall: float = 0.0,
    refuse: int = 0,
    tls: bool = False,
) -> Iterator[Server]:
    """A server for rows of this width, until the block is left.
    `latency` and `stall` are milliseconds, `refuse` percent.
    """
    command = [str(built("server")), "--rows", str(prefix(width, style)), "--latency", str(latency)]
    command += ["--stall-every", str(stall_every), "--stall", str(stall), "--refuse", str(refuse)]
    if tls:
        _, cert, key = certificate()
        command += ["--tls", str(cert), str(key)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        if not line:
            msg = "the server did not start; without OpenSSL's headers (libssl-dev) it has no TLS"
            raise RuntimeError(msg)
        yield Server(int(line[1]), tls=tls)
    finally:
        process.kill()
        process.communicate()  # closes the pipe too


def floor(at: Server, batch: int, inflight: int, encoding: str, seconds: float = 1.0) -> dict[str, float]:
    """What the server gives when nobody looks at the answers:
    texts per second, and the CPU of both ends per 1,000 texts.
    """
    body = json.dumps({"input": texts(batch), "model": "bench", "encoding_format": encoding}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    before = at.stats()
    with tempfile.NamedTemporaryFile() as file:
        file.write(head.encode() + body)
        file.flush()
        command = [str(built("load")), str(at.port), str(inflight), str(seconds), file.name]
        done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    after, made = at.stats(), done["responses"] * batch
    return {
        "rate": made / done["seconds"],
        "bytes": done["bytes"] / done["seconds"],
        "reader": done["cpu_ms"] / made * 1000,
        "server": (after["cpu_ms"] - before["cpu_ms"]) / (after["texts"] - before["texts"]) * 1000,
    }
