"""Which type is inside base64, and which width came: what the sender sent is what is read, or it is refused."""

from __future__ import annotations

import base64
import itertools
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit.catalog import MODELS
from embedkit.codec import byte_types, float_type
from embedkit.codec import vectors as vectors_module
from embedkit.errors import DecodeError
from embedkit.testing import FakeExchange, _listed, _put, _vector, response
from tests.providers.test_conformance import GOLDEN

pytestmark = pytest.mark.anyio
WIDE = (64, 65, 96, 128, 256, 384, 512, 768, 1024, 1536, 3072)
KNOWN = "openai:text-embedding-3-large"  # 3072 wide, trained to be cut to any width
UNKNOWN = "openai:some-model"


def made(chance, count, width, *, unit):
    """Vectors as models make them."""
    values = chance.standard_normal((count, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True) if unit else values


def sent(values, kind):
    """(rows as the sender has them, the same as float32) of vectors in a type, narrowed floats among them."""
    if kind in ("<f4", "<f8"):
        return values.astype(kind), values.astype("f4")
    if kind == "f8 of f4":
        return values.astype("f4").astype("<f8"), values.astype("f4")
    if kind == "f8 of f2":
        return values.astype("f2").astype("<f8"), values.astype("f2").astype("f4")
    if kind == "f4 of f2":
        return values.astype("f2").astype("<f4"), values.astype("f2").astype("f4")
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    scale = 127 / np.abs(unit).max() if kind.endswith("full") else 127
    if kind.startswith("i1"):
        rows = np.rint(unit * scale).astype("i1")
    elif kind.startswith("u1"):
        rows = (np.rint(unit * scale) + 128).astype("u1")
    else:
        rows = np.packbits(values > 0, axis=1)
    return rows, rows.astype("f4")


FLOATS = ("<f4", "<f8", "f8 of f4", "f8 of f2", "f4 of f2")
SMALL = ("i1", "i1 full", "u1", "u1 full", "packed")


def reply(rows, as_numbers):
    if as_numbers:
        items = [{"index": row, "embedding": values.tolist()} for row, values in enumerate(rows)]
    else:
        items = [
            {"index": row, "embedding": base64.b64encode(values.tobytes()).decode()} for row, values in enumerate(rows)
        ]
    return response({"data": items})


async def read(model, answer, count, **options):
    exchange = FakeExchange(lambda _: answer)
    embedder = embedkit.connect(model, api_key="k", exchange=exchange, retry=embedkit.RetryPolicy(attempts=1))
    try:
        return (
            await embedder.embed_batch(
                [f"text {number}" for number in range(count)], embedder._merged(*options_of(options))
            )
        ).vectors
    except DecodeError as error:
        return error


def options_of(options):
    return [options.get(name) for name in ("input_type", "dimensions", "dtype", "truncate", "normalize", "extra")]


def cut(truth, width):
    if truth.shape[1] == width:
        return truth
    part = truth[:, :width].astype("f8")
    return part / np.linalg.norm(part, axis=1, keepdims=True)


@settings(deadline=None, max_examples=400)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from(FLOATS + SMALL), st.booleans(), st.booleans(), st.sampled_from(WIDE),
    st.one_of(st.sampled_from(WIDE), st.sampled_from(["half", "double", "quarter", "fourfold", "eighth", "same"])), st.booleans(),
)  # fmt: skip
async def test_with_a_width_asked_for_it_is_right_or_refused(seed, kind, as_numbers, unit, width, asked, known):
    """Of any type and width: the sender's vector, its cut if the model is trained for that, or DecodeError."""
    rows, truth = sent(made(np.random.default_rng(seed), 3, width, unit=unit), kind)
    relative = {"half": 1 / 2, "double": 2, "quarter": 1 / 4, "fourfold": 4, "eighth": 1 / 8, "same": 1}
    asked = int(rows.shape[1] * relative[asked]) if isinstance(asked, str) else asked
    asked = min(max(asked, byte_types.FEW), 3072)  # fewer values show nothing of their type
    found = await read(KNOWN if known else UNKNOWN, reply(rows, as_numbers), 3, dimensions=asked)

    if isinstance(found, DecodeError):
        assert asked != rows.shape[1] or (kind in SMALL and not as_numbers)
        assert not (known and kind in FLOATS and asked < rows.shape[1])
    else:
        assert kind in FLOATS or as_numbers  # small integers as numbers are numbers
        assert asked == rows.shape[1] or known
        assert np.allclose(found, cut(truth, asked), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FLOATS), st.booleans(), st.booleans(), st.sampled_from(WIDE))
async def test_without_a_width_floats_and_doubles_are_told_apart(seed, kind, as_numbers, unit, width):
    """No width asked for: any float type comes out as what it is, and nothing is refused."""
    rows, truth = sent(made(np.random.default_rng(seed), 3, width, unit=unit), kind)
    found = await read(UNKNOWN, reply(rows, as_numbers), 3)

    assert np.allclose(found, truth, rtol=1e-6, atol=0)


# What no byte can tell apart goes by the dtype asked for: bytes sent → dtype asked → what is read.
BYTES = {
    ("i1", "int8"): "i1", ("i1", "uint8"): "u1", ("i1", "binary"): "i1", ("i1", "ubinary"): "u1",
    ("u1", "int8"): "i1", ("u1", "uint8"): "u1", ("u1", "binary"): "i1", ("u1", "ubinary"): "u1",
    ("packed", "int8"): "i1", ("packed", "uint8"): "u1", ("packed", "binary"): "i1", ("packed", "ubinary"): "u1",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "dtype"), BYTES)
@pytest.mark.parametrize("width", [64, 512, 1024])
def test_what_no_byte_tells_apart_goes_by_the_dtype_asked(kind, dtype, width):
    """Small integers and packed bits are all bytes: they are read as the dtype that was asked for."""
    rows, _ = sent(made(np.random.default_rng(width), 2, width, unit=True), kind)
    vectors = [vectors_module.Vector(base64.b64encode(row.tobytes()).decode()) for row in rows]
    found = vectors_module.matrix(vectors, embedkit.Options(dtype=dtype), 2)

    assert found.dtype == BYTES[kind, dtype]
    assert found.tobytes() == rows.tobytes()


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("unit", [True, False])
def test_floats_are_no_small_integers(kind, dtype, unit):
    """A server that ignores the dtype is not believed: its floats are not read as so many small integers."""
    for seed, width in itertools.product(range(20), (64, 512, 1024)):
        rows, _ = sent(made(np.random.default_rng(seed), 2, width, unit=unit), kind)
        vectors = [vectors_module.Vector(base64.b64encode(row.tobytes()).decode()) for row in rows]
        with pytest.raises(DecodeError, match=f"dtype='{dtype}' was asked for, but the provider answered float"):
            vectors_module.matrix(vectors, embedkit.Options(dtype=dtype), 2)


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SMALL), st.sampled_from([256, 512, 1024, 3072]))
def test_small_integers_are_never_taken_for_floats(seed, kind, width):
    """Nor the other way round."""
    rows, _ = sent(made(np.random.default_rng(seed), 1, width, unit=True), kind)

    assert float_type(rows[0].tobytes()) is None


@pytest.mark.parametrize("model", [KNOWN, UNKNOWN])
async def test_bytes_that_happen_to_be_numbers_as_floats_are_no_floats(model):
    """Small integers none of which reads as NaN: their length fits the width asked for, their sizes give them away."""
    values = np.random.default_rng(3).choice(np.array([0, 1, 2, 3, 5, 16, 96, -112, -16, -3], "i1"), (3, 1024))
    assert np.isfinite(values.view("<f4")).all()
    refused = await read(model, reply(values, as_numbers=False), 3, dimensions=256)

    assert isinstance(refused, DecodeError)
    assert "neither float32 nor float64" in str(refused)


OTHERS = {
    "float16": lambda values: values.astype("<f2"), "big-endian float32": lambda values: values.astype(">f4"),
    "big-endian float64": lambda values: values.astype(">f8"),
    "bfloat16": lambda values: (values.astype("<f4").view("<u4") >> 16).astype("<u2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("width", [128, 256, 768, 1536])
async def test_other_floats_are_never_read_as_float32(kind, unit, width):
    """Types that nobody asks for, told by their bytes: refused with and without a width, for a known model too."""
    for seed in range(20):
        rows = OTHERS[kind](made(np.random.default_rng(seed), 2, width, unit=unit))
        for model, asked in itertools.product((KNOWN, UNKNOWN), (None, width // 4, width // 2, width, 2 * width)):
            assert isinstance(await read(model, reply(rows, as_numbers=False), 2, dimensions=asked), DecodeError)


SPOILT = {**OTHERS, "float64": lambda values: values.astype("<f8")}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("place", [0, 1, 6])
@pytest.mark.parametrize("size", [7, 1])
async def test_one_row_of_another_type_costs_no_other_row(kind, place, size):
    """Of seven rows in base64 one is of another type, in one request or in seven: it is right or it fails, alone."""
    rows, truth = sent(made(np.random.default_rng(5), 7, 384, unit=True), "<f4")
    raw = [row.tobytes() for row in rows]
    raw[place] = SPOILT[kind](truth[place : place + 1]).tobytes()

    def answer(request):
        texts = json.loads(request.body)["input"]
        numbers = [int(text[-1]) if text[-1].isdigit() else (place + 1) % 7 for text in texts]
        items = [
            {"index": row, "embedding": base64.b64encode(raw[number]).decode()} for row, number in enumerate(numbers)
        ]
        return {"data": items}

    embedder = embedkit.connect(
        UNKNOWN, api_key="k", exchange=FakeExchange(answer), limits=embedkit.Limits(max_texts=size), max_concurrency=1,
        retry=embedkit.RetryPolicy(attempts=1),
    )  # fmt: skip
    texts = [f"text {number}" for number in range(7)]
    if place == 0 and size == 1 and kind != "float64":  # nothing was right before it: it may be the server
        with pytest.raises(DecodeError):
            await embedder.embed(texts, on_error="skip")
        return
    result = await embedder.embed(texts, on_error="skip")
    good = [row for row in range(7) if row != place]

    assert np.array_equal(result.vectors[good], truth[good])
    if kind == "float64":
        assert np.allclose(result.vectors[place], truth[place], rtol=1e-6)
    elif kind != "big-endian float32" or place == 0:  # as many bytes as all others; only the first row is looked at
        assert list(result.failures) == [place]


@pytest.mark.parametrize("kind", [*SPOILT, "float32"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_a_first_row_of_zeros_hides_no_type(kind, dtype):
    """A text whose vector is zero shows no type: the others do, and no number of another type is taken for one."""
    _, truth = sent(made(np.random.default_rng(6), 4, 384, unit=True), "<f4")
    truth[:2] = 0
    rows = truth if kind == "float32" else SPOILT[kind](truth)
    vectors = [vectors_module.Vector(base64.b64encode(row.tobytes()).decode()) for row in rows]
    if dtype == "float32" and kind in ("float32", "float64"):
        assert np.allclose(vectors_module.matrix(vectors, embedkit.Options(), 4), truth, rtol=1e-6)
    else:
        with pytest.raises(DecodeError, match=f"dtype='{dtype}' was asked for, but the provider answered {kind}"):
            vectors_module.matrix(vectors, embedkit.Options(dtype=dtype), 4)


async def test_a_server_that_ignores_dimensions():
    """A cut to half: of a known model cut and made unit length; of an unknown one refused, with both widths."""
    rows, truth = sent(made(np.random.default_rng(1), 2, 1536, unit=True), "<f4")
    for as_numbers in (False, True):
        found = await read("openai:text-embedding-3-small", reply(rows, as_numbers), 2, dimensions=768)
        assert np.allclose(found, cut(truth, 768), atol=1e-6)
        as_it_is = await read(
            "openai:text-embedding-3-small", reply(rows, as_numbers), 2, dimensions=768, normalize=False
        )
        assert np.array_equal(as_it_is, truth[:, :768])
        for other in (768, 384, 3072, 512):
            refused = await read(UNKNOWN, reply(rows, as_numbers), 2, dimensions=other)
            assert isinstance(refused, DecodeError)
            assert f"dimensions={other} was asked for, but the provider answered 1536" in str(refused)


async def test_what_is_cut_agrees_with_what_is_not():
    """A server that honors the width on some requests only gives one kind of vector all the same."""
    _, truth = sent(made(np.random.default_rng(2), 4, 1536, unit=True), "<f4")
    short = cut(truth, 256).astype("<f4")
    answers = iter([reply(truth[:2], as_numbers=False), reply(short[2:], as_numbers=False)])
    embedder = embedkit.connect(
        "openai:text-embedding-3-small", api_key="k", dimensions=256, exchange=FakeExchange(lambda _: next(answers)),
        limits=embedkit.Limits(max_texts=2), max_concurrency=1,
    )  # fmt: skip
    result = await embedder.embed(list("abcd"))

    assert np.allclose(result.vectors, short, atol=1e-6)


def test_every_known_width_can_be_told():
    """No model of the catalog is so narrow that its vectors show nothing of their type."""
    widths = {facts.dimensions for models in MODELS.values() for facts in models if facts.dimensions}

    assert min(widths) * 4 >= byte_types.LEAST


# --- every dialect, from its goldens ---------------------------------------------------------------------------------


def successes():
    """One golden success of every host: (name, golden)."""
    for folder in sorted(GOLDEN.iterdir()):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            golden = json.loads(path.read_text("utf-8"))
            body = golden["response"]["body"]
            body = json.loads(body) if isinstance(body, str) and body[:1] in ("{", "[") else body
            if "error" in golden["expect"] or not isinstance(body, (dict, list)):
                continue
            where, items = _listed(body, len(golden["texts"]))
            if items and golden.get("options", {}).get("dtype") in (None, "float32"):
                yield pytest.param(golden, body, where, items, id=f"{folder.name}-{path.stem}")
                break


@pytest.mark.parametrize(("golden", "body", "where", "items"), list(successes()))
async def test_every_dialect_reads_what_was_sent_or_refuses_it(golden, body, where, items):
    """Each host's reply with other vectors, of any type and width: the sender's, its cut, or DecodeError."""
    chance = np.random.default_rng(len(golden["texts"]))
    count = len(items)
    raw_bytes = "perplexity" in golden["connect"]["model"]  # its float32 are whole numbers from int8
    for kind, as_numbers, width, asked in itertools.product(
        FLOATS + SMALL, (False, True), (128, 1024), (None, 64, 128, 512, 1024)
    ):
        rows, truth = sent(made(chance, count, width, unit=True), kind)
        order = [item.get("index", place) if isinstance(item, dict) else place for place, item in enumerate(items)]
        fresh = [
            _put(
                item,
                _vector(item)[0],
                rows[place].tolist() if as_numbers else base64.b64encode(rows[place].tobytes()).decode(),
            )
            for item, place in zip(items, order, strict=True)
        ]
        answer = response(_put(body, where, fresh), golden["response"]["status"], golden["response"].get("headers"))
        embedder = embedkit.connect(
            **golden["connect"],
            exchange=FakeExchange(lambda _, answer=answer: answer),
            retry=embedkit.RetryPolicy(attempts=1),
        )
        embedder._probed = True
        options = msgspec.structs.replace(embedder._merged(*options_of(golden.get("options", {}))), dimensions=asked)
        try:
            found = (await embedder.embed_batch(golden["texts"], options)).vectors
        except (DecodeError, embedkit.ConfigError):
            continue
        if raw_bytes and not as_numbers:
            assert kind in SMALL
            truth = rows.view("i1").astype("f4")
        elif kind in SMALL and not as_numbers:
            assert asked is None  # float32 is the default, and never refused for doubt
            continue
        assert asked in (None, found.shape[1])
        assert np.allclose(unit_length(found), unit_length(truth[:, : found.shape[1]]), rtol=1e-4, atol=1e-5)


def unit_length(rows):
    return rows / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
