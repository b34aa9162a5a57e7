"""Replies become checked rows, or an error: never a row in another's place, a short row, or a value that is none."""

from __future__ import annotations

import base64
import json
import math
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedkit._types import Limits, ModelFacts, Options, Request, Response
from embedkit.codec import (
    Secrets,
    Target,
    accepted_input_types,
    bearer,
    compact,
    finite,
    header_int,
    matrix,
    normalize,
    pool_tokens,
    prefixed,
    quantize,
    reject_unsupported,
    with_headers,
)
from embedkit.errors import AuthError, ConfigError, DecodeError, QuotaError, RateLimitError, ServerError
from embedkit.providers import find
from embedkit.testing import response

PLAIN = Options()
VECTORS = [[0.5, -0.25, 0.125], [1.0, 0.0, -1.0], [3.0, 4.0, 5.0]]
DTYPES = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def dialect(name="openai", **quirks):
    """A host's codec for a model the catalog does not know."""
    host = find(name)
    return host.dialect(Target(host, "m", host.base_url or "http://server.example/v1"), **{**host.quirks, **quirks})


def b64(values, code="<f4"):
    return base64.b64encode(np.asarray(values, code).tobytes()).decode()


def data(*vectors, indices=None):
    """A reply in the OpenAI form; `indices` None: 0, 1, 2 …; an index of None: left out."""
    indices = range(len(vectors)) if indices is None else indices
    return {"data": [{"embedding": vector} | ({} if index is None else {"index": index})
                     for vector, index in zip(vectors, indices, strict=True)]}  # fmt: skip


def decode(body, count, options=PLAIN, name="openai", out=None):
    answer = body if isinstance(body, Response) else response(body)
    return dialect(name).decode(answer, options, count, out)


def refused(body, count=3, options=PLAIN, name="openai"):
    with pytest.raises(DecodeError) as caught:
        decode(body, count, options, name)
    return caught.value


# --- order and count -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations(range(5)), st.lists(st.booleans(), min_size=5, max_size=5))
def test_rows_come_back_in_input_order(order, as_text):
    """However a reply is shuffled, and whether a vector comes as base64 or as numbers, row i belongs to text i."""
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    vectors = [b64(rows[index]) if as_text[index] else rows[index].tolist() for index in order]
    reply = decode(data(*vectors, indices=order), 5)

    assert np.array_equal(reply.vectors, rows)
    assert reply.vectors.dtype == np.float32
    assert reply.vectors.flags.c_contiguous


def test_missing_indices_mean_input_order():
    """A server that numbers nothing is believed when the count is right."""
    assert decode(data(*VECTORS, indices=[None] * 3), 3).vectors.tolist() == VECTORS


@pytest.mark.parametrize(
    "indices",
    [[0, 0, 1], [0, 1, 1], [0, 1, None], [None, None, 0], [2, 3, None], [-1, 0, 1], [0, 2, 3], [2, 1, 2], [0, 0, 0]],
)
def test_indices_that_are_no_permutation_are_an_error(indices):
    """Twice, missing in places, negative, or beyond the end: no guess is made, and the message shows them."""
    assert str(indices[0]) in str(refused(data(*VECTORS, indices=indices)))


@pytest.mark.parametrize("index", ["zero", "0.5", 0.5, True, [0]])
def test_an_index_that_is_no_number_is_an_error(index):
    """An index must be a whole number."""
    assert "index" in str(refused(data(*VECTORS, indices=[index, 1, 2])))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("indices", [[1, 2, 3], [None, None, None]])
def test_a_wrong_count_is_an_error(count, indices):
    """Too few or too many embeddings are refused with both numbers, whether they are numbered or not."""
    error = str(refused(data(*VECTORS, indices=indices), count))

    assert str(count) in error
    assert "3" in error


@pytest.mark.parametrize(
    "body", [{}, {"data": []}, {"data": None}, [], None, "text", 7, {"data": {}}, {"object": "list"}]
)
def test_a_reply_without_embeddings_is_an_error(body):
    """An empty reply, and any other JSON."""
    refused(body)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["null", "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", '"0.5"', "true", "[0.5]", "{}", ""]
)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("width", [2, 40])
def test_a_value_that_is_no_finite_number_is_an_error(value, place, width):
    """Null, NaN, infinity, a string, a boolean or a list in any row, short or long, never becomes a number."""
    rows = [", ".join([*["0.5"] * width, value if row == place else "0.5"]) for row in range(3)]
    text = ", ".join(f'{{"index": {row}, "embedding": [{values}]}}' for row, values in enumerate(rows))

    refused(response(f'{{"data": [{text}]}}'))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["openai", "ollama", "tei"])
def test_non_finite_base64_names_its_rows(value, name):
    """A NaN inside base64 is found, in every dialect, and the texts it came for are named."""
    vectors = [b64([1, 2]), b64([value, 2]), b64([3, value])]
    body = {"openai": data(*vectors), "ollama": {"embeddings": vectors}, "tei": vectors}[name]

    assert refused(body, name=name).rows == (1, 2)


@settings(deadline=None)
@given(st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=6))
def test_every_finite_float_comes_through(rows):
    """Numbers and base64 give the same float32, bit for bit, sums that overflow included."""
    numbers, texts = decode(data(*rows), len(rows)).vectors, decode(data(*map(b64, rows)), len(rows)).vectors

    assert numbers.tobytes() == texts.tobytes() == np.array(rows, np.float32).tobytes()


@settings(deadline=None)
@given(st.data())
def test_no_value_that_is_not_finite_gets_past(drawn):
    """Wherever NaN and infinities are put, also where they cancel out, exactly their rows are named."""
    rows = np.full((drawn.draw(st.integers(1, 8)), drawn.draw(st.integers(1, 8))), 3e38, np.float32)
    bad = drawn.draw(st.sets(st.integers(0, rows.shape[0] - 1)))
    for row in bad:
        rows[row, drawn.draw(st.integers(0, rows.shape[1] - 1))] = drawn.draw(
            st.sampled_from([np.nan, np.inf, -np.inf])
        )
    if not bad:
        finite(rows)
        return
    with pytest.raises(DecodeError) as caught:
        finite(rows)

    assert caught.value.rows == tuple(sorted(bad))


def test_whole_numbers_and_exponents_are_numbers():
    """A bare 0, 1E-4 and numbers below the smallest float32 are taken as they are: Venice and Bedrock send them."""
    reply = decode(
        response('{"data": [{"index": 0, "embedding": [0, 1.3542175E-4, -1.057e-6, -6.3860302832115e-33, 1e-60]}]}'), 1
    )

    assert reply.vectors[0].tolist() == [
        np.float32(value) for value in (0, 1.3542175e-4, -1.057e-6, -6.3860302832115e-33, 0)
    ]


# --- width -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        [[0.5, 0.5], [0.5, 0.5], [0.5]],
        [[0.5], [0.5, 0.5], [0.5, 0.5]],
        [[0.5, 0.5], [0.5], [0.5, 0.5, 0.5]],
        [b64([1, 2]), b64([1, 2]), b64([1])],
        [b64([1]), b64([1, 2]), b64([1, 2])],
        [b64([1, 2]), [0.5, 0.5], b64([1])],
        [[0.5, 0.5], b64([1, 2, 3]), [0.5, 0.5]],
        [[], [], []],
        [[0.5], [], [0.5]],
        ["", "", ""],
        [b64([1]), "", b64([1])],
    ],
)
def test_rows_of_unequal_or_no_width_are_an_error(vectors):
    """Ragged or empty, as numbers, as base64 or mixed."""
    refused(data(*vectors))


@pytest.mark.parametrize(
    ("asked", "vector"), [(2, [1.0, 2.0, 3.0]), (4, [1.0, 2.0, 3.0]), (12, b64([1, 2, 3])), (1, b64([1, 2, 3]))]
)
def test_a_width_other_than_the_one_asked_for_is_an_error(asked, vector):
    """A server that ignores `dimensions`, answers wider, or sends a quarter of it is found out, with both widths."""
    error = str(refused(data(vector), 1, Options(dimensions=asked)))

    assert f"dimensions={asked}" in error
    assert "3" in error


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 9, 1023])
def test_bytes_that_are_no_whole_number_of_floats_are_an_error(size):
    """Base64 of one byte per component, or cut off, never becomes a vector a quarter as long."""
    refused(data(base64.b64encode(b"\1" * size).decode()), 1)


@pytest.mark.parametrize("text", ["AACAPw", "AACAP===", "AACA Pw==", "____", "AACAPw==\n", "?", "AACAPw==AACAPw=="])
def test_what_is_no_base64_is_an_error(text):
    """Without padding, with too much, with blanks, or in another alphabet."""
    refused(data(text), 1)


def unit(width, seed):
    """A vector of unit length, as doubles."""
    values = np.random.default_rng(seed).standard_normal(width)
    return values / np.linalg.norm(values)


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 64), st.integers(0, 999))
def test_doubles_inside_base64_are_found_out(width, seed):
    """A server that sends float64 where float32 is meant (seen from vLLM) gives the same row, of the right width."""
    values = unit(width, seed).astype(np.float32)
    body = data(b64(values.astype(np.float64), "<f8"))

    assert np.array_equal(decode(body, 1).vectors[0], values)
    assert np.array_equal(decode(body, 1, Options(dimensions=width)).vectors[0], values)


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 32), st.integers(0, 999), st.sampled_from([1e-3, 1.0, 40.0]))
def test_floats_are_not_taken_for_doubles(half, seed, scale):
    """Float32 of an even width stays float32, whatever its length, and also where the width was asked for."""
    values = (unit(2 * half, seed) * scale).astype(np.float32)

    assert np.array_equal(decode(data(b64(values)), 1).vectors[0], values)
    assert np.array_equal(decode(data(b64(values)), 1, Options(dimensions=2 * half)).vectors[0], values)


# --- where rows go ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("shape", ["rows", "every other row", "columns", "doubles"])
def test_rows_are_written_where_the_caller_says(as_text, shape):
    """Rows of a larger matrix, strided or narrower views, and another float type are filled; their neighbors stay."""
    whole = np.full((8, 6), -1, np.float64 if shape == "doubles" else np.float32)
    view = {"every other row": whole[1:7:2, :3], "columns": whole[2:5, 3:]}.get(shape, whole[2:5, :3])
    before = whole.sum() - view.sum()
    widths = []

    def out(width):
        widths.append(width)
        return view

    reply = decode(data(*(map(b64, VECTORS) if as_text else VECTORS)), 3, out=out)

    assert widths == [3]
    assert np.shares_memory(reply.vectors, whole)
    assert view.tolist() == VECTORS
    assert whole.sum() - view.sum() == before


@pytest.mark.parametrize(
    "body", [data(*VECTORS[:2], indices=[None] * 2), data(*VECTORS, indices=[0, 0, 1]), "junk", data([], [], [])]
)
def test_no_row_is_asked_for_before_the_reply_is_sound(body):
    """A reply that is short, misnumbered, unreadable or empty never touches the caller's matrix."""

    def out(width):
        raise AssertionError(width)

    with pytest.raises(DecodeError):
        decode(body, 3, out=out)


def test_a_width_unlike_the_room_is_an_error():
    """A caller's matrix of another width is never filled in part: what `out` raises, or a mismatch, comes out."""
    room = np.zeros((1, 2), np.float32)

    with pytest.raises((DecodeError, ValueError)):
        decode(data([1.0, 2.0, 3.0]), 1, out=lambda width: room)


# --- smaller dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255), ("binary", -128, 127), ("ubinary", 0, 255)]
)
def test_small_values_come_through_and_others_are_an_error(dtype, low, high):
    """Whole numbers in range, as a list or as bytes, keep their value; others are errors."""
    options = Options(dtype=dtype)
    rows = matrix([[low, 0, high], [high, 1, low]], options, 2)

    assert rows.tolist() == [[low, 0, high], [high, 1, low]]
    assert rows.dtype == DTYPES[dtype]
    assert matrix([np.array([low, 0, high], DTYPES[dtype]).tobytes()], options, 1).tolist() == [[low, 0, high]]
    for wrong in (low - 1, high + 1, 0.5, 1e30):
        with pytest.raises(DecodeError):
            matrix([[0, 0, 0], [0, wrong, 0]], options, 2)


def test_packed_bits_have_an_eighth_of_the_width():
    """`dimensions` counts components: eight to a byte of a packed row."""
    options = Options(dtype="ubinary", dimensions=16)

    assert matrix([[1, 2]], options, 1).shape == (1, 2)
    with pytest.raises(DecodeError, match="answered 24"):
        matrix([[1, 2, 3]], options, 1)


@settings(deadline=None)
@given(st.lists(st.lists(floats.map(lambda value: value / 2), min_size=16, max_size=16), min_size=1, max_size=4))
def test_quantized_as_numpy_would(rows):
    """int8 is the unit vector times 127, uint8 that plus 128, bits are the signs: as plain Python has them."""
    values = np.array(rows, np.float32)
    length = [math.sqrt(math.fsum(float(value) ** 2 for value in row)) or 1.0 for row in values]
    exact = np.array([[float(value) / size * 127 for value in row] for row, size in zip(values, length, strict=True)])
    bits = [
        [sum(128 >> place for place in range(8) if row[8 * byte + place] > 0) for byte in range(2)]
        for row in values.tolist()
    ]

    assert quantize(values, "float32") is values
    assert np.abs(quantize(values, "int8") - exact).max() <= 0.51
    assert np.array_equal(quantize(values, "uint8").astype(int), quantize(values, "int8").astype(int) + 128)
    assert quantize(values, "ubinary").tolist() == bits
    assert (quantize(values, "binary").astype(int) + 128).tolist() == bits
    assert {dtype: quantize(values, dtype).dtype for dtype in DTYPES} == {
        dtype: np.dtype(kind) for dtype, kind in DTYPES.items()
    }
    assert np.array_equal(values, np.array(rows, np.float32))


def test_bits_are_packed_as_servers_pack_them(shared):
    """Offset by 128, most significant bit first: what a recorded server made of its own floats."""
    folder = shared / "captures" / "vllm-cpu-matryoshka"
    kinds = {"float": "default_types", "binary": "binary", "ubinary": "ubinary"}
    recorded = {
        kind: json.loads(json.loads((folder / f"cohere_{case}.json").read_text("utf-8"))["response"]["body"])[
            "embeddings"
        ][kind]
        for kind, case in kinds.items()
    }
    values = np.array(recorded["float"], np.float32)
    values[values == 0] = 1e-9  # the sign of nothing: this server counts it as positive

    assert quantize(values, "ubinary").tolist() == recorded["ubinary"]
    assert quantize(values, "binary").tolist() == recorded["binary"]


def test_bits_need_whole_bytes():
    """A width that is no multiple of eight cannot be packed."""
    with pytest.raises(ConfigError, match="12"):
        quantize(np.ones((1, 12), np.float32), "binary")


@settings(deadline=None)
@given(st.lists(st.lists(floats, min_size=4, max_size=4), min_size=1, max_size=5))
@example([[3.4e38] * 4, [1e-45, 0, 0, 0], [0.0] * 4])
def test_normalize_makes_unit_length_in_place(rows):
    """Every row gets length one and keeps its direction, however long or short it was; a zero row stays zero."""
    values = np.array(rows, np.float32)
    before = values.astype(np.float64)
    normalize(values)
    was = np.linalg.norm(before, axis=1)

    assert np.allclose(np.linalg.norm(values.astype(np.float64), axis=1), was > 0, atol=1e-6)
    assert np.allclose(values, before / np.where(was, was, 1)[:, None], rtol=1e-6, atol=1e-40)


# --- token vectors ---------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.lists(floats.map(lambda value: value / 8), min_size=3, max_size=3), min_size=1, max_size=6))
def test_pooled_as_numpy_would(tokens):
    """The mean, the first or the last of a text's token vectors."""
    assert np.allclose(pool_tokens(tokens, "mean"), np.array(tokens, np.float64).mean(axis=0))
    assert list(pool_tokens(tokens, "cls")) == tokens[0]
    assert list(pool_tokens(tokens, "last")) == tokens[-1]


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
@pytest.mark.parametrize("tokens", [[], [[1.0, 2.0], [1.0]]])
def test_tokens_that_cannot_be_pooled_are_an_error(tokens, how):
    """No token, or tokens of unequal width."""
    with pytest.raises(DecodeError, match=str(len(tokens))):
        pool_tokens(tokens, how)


# --- an error inside a success ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"message": "slow", "code": 429}, RateLimitError, True),
        ({"message": "slow", "code": "429"}, RateLimitError, True),
        ({"message": "slow", "code": "rate_limit_exceeded"}, RateLimitError, True),
        ({"message": "out", "code": "insufficient_quota"}, QuotaError, False),
        ({"message": "out", "type": "insufficient_quota", "code": None}, QuotaError, False),
        ({"message": "credits", "code": 402}, QuotaError, False),
        ({"message": "key", "code": 401}, AuthError, False),
        ({"message": "down", "code": 503}, ServerError, True),
        ({"message": "down", "code": 502}, ServerError, True),
        ({"message": "odd", "code": 200}, DecodeError, False),
        ({"message": "odd", "code": 1000}, DecodeError, False),
        ({"message": "odd", "code": "²"}, DecodeError, False),
        ({"message": "odd", "code": "9" * 5000}, DecodeError, False),
        ({"message": "odd"}, DecodeError, False),
        ("odd", DecodeError, False),
    ],
)
@pytest.mark.parametrize("name", ["openai", "cohere", "ollama", "nomic", "tei", "huggingface"])
def test_an_error_inside_a_success_is_the_error_it_names(name, error, kind, retryable):
    """Where the body of a 200 is an error, its own code decides; without one it is a DecodeError with the message."""
    with pytest.raises(kind) as caught:
        decode({"error": error}, 1, name=name)

    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert (error if isinstance(error, str) else error["message"]) in str(caught.value)


def test_an_error_beside_embeddings_does_not_hide_them():
    """A null or empty `error` beside a good reply is nothing."""
    assert decode({"error": None, **data(*VECTORS)}, 3).vectors.tolist() == VECTORS


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[" * 100_000,
        '{"data": [',
        b"\xff\xfe",
        "<html></html>",
        b'"\xed\xa0\xbd"',
    ],
)
@pytest.mark.parametrize("name", ["openai", "cohere", "ollama", "nomic", "tei", "huggingface"])
def test_junk_is_a_decode_error(name, body):
    """Whatever is no JSON, ends early, nests without end or is no UTF-8; the message shows how it starts."""
    error = refused(response(body), 1, name=name)

    assert error.retryable is False
    assert "unreadable reply" in str(error)


def test_padding_before_the_json_is_skipped():
    """Blanks before the body, which OpenRouter sends to keep a connection open, are no part of it."""
    assert decode(response("\n         \n" + json.dumps(data(*VECTORS))), 3).vectors.tolist() == VECTORS


# --- what is remembered of a refusal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "again"),
    [
        (400, "base64 encoding is not currently supported", True),
        (422, "body.encoding_format: Input should be 'float'", True),
        (500, "unknown encoding format", True),
        (400, "maximum context length is 512 tokens", False),
        (401, "encoding_format is for members", False),
        (503, "base64 encoder is loading", False),
    ],
)
def test_a_refused_encoding_is_not_asked_for_again(status, message, again):
    """A server that refuses base64 is asked for its default from then on; any other refusal teaches nothing."""
    codec = dialect("compatible")
    better = codec.learn(response({"error": {"message": message}}, status))

    assert (better != codec) is again
    assert ("encoding_format" in json.loads(better.encode(["a"], PLAIN).body)) is not again
    assert better.learn(response({"error": {"message": message}}, status)) == better


# --- small helpers ---------------------------------------------------------------------------------------------------


def test_compact_leaves_out_only_what_has_no_value():
    """None is left out; False, zero and the empty list are values."""
    assert compact(a=None, b=False, c=0, d=[]) == {"b": False, "c": 0, "d": []}


def test_only_names_the_option_and_the_way_out():
    """An option that a host cannot honor is refused with its value and what may be said instead."""
    reject_unsupported(Options(truncate="end"), "acme", truncate=("end", "error"), dtype=("float32",))
    with pytest.raises(ConfigError, match=r"acme cannot do truncate='end'; it takes 'error'"):
        reject_unsupported(Options(truncate="end"), "acme", truncate=("error",))
    with pytest.raises(ConfigError, match="leaving it out"):
        reject_unsupported(Options(truncate="end"), "acme", truncate=())


def test_prefixes_are_those_of_the_model():
    """A prefix goes before every text of its kind; a model without one, and no kind at all, leave texts alone."""
    facts = ModelFacts(name="m", prefixes={"query": "q: ", "clustering": "c: "})

    assert prefixed(["a", "b"], Options(input_type="query"), facts) == ["q: a", "q: b"]
    assert prefixed(["a"], Options(input_type="document"), facts) == ["a"]
    assert prefixed(["a"], PLAIN, facts) == ["a"]
    assert prefixed(["a"], Options(input_type="query"), None) == ["a"]
    assert accepted_input_types(facts, "similarity") == {"query", "document", "clustering", "similarity"}
    assert accepted_input_types(None) == {"query", "document"}


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("0", 0), ("", None), ("12.5", None), ("-1", None), ("²", None), ("٣", None), ("9" * 5000, None)],
)
def test_a_count_in_a_header_is_a_number_or_nothing(text, number):
    """Anything but plain digits, or more of them than a count can have, is no count."""
    assert header_int(Response(200, {"x-compute-tokens": text}, b""), "x-compute-tokens") == number
    assert header_int(Response(200, {}, b""), "x-compute-tokens") is None


def test_a_key_goes_into_one_header_and_no_repr():
    """Bearer, or nothing at all; other headers stay; secrets show their names only."""
    request = Request("http://h/", b"", {"accept": "x"})
    signed = bearer(request, Secrets({"api_key": "sk-hidden"}), 0.0)

    assert signed.headers == {"accept": "x", "authorization": "Bearer sk-hidden"}
    assert bearer(request, Secrets({}), 0.0) is request
    assert with_headers(request, {"b": "c"}).headers == {"accept": "x", "b": "c"}
    assert "sk-hidden" not in repr(Secrets({"api_key": "sk-hidden"})) + repr(signed)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h/v1", "http://h/v1/embed"),
        ("http://h/v1/", "http://h/v1/embed"),
        ("http://h/v1?a=b", "http://h/v1/embed?a=b"),
    ],
)
def test_a_route_goes_before_the_query(base, url):
    """A query in the base URL stays at the end, and a slash too many does not matter."""
    assert Target(find("openai"), "m", base).url("/embed") == url


def test_limits_are_the_hosts():
    """A codec without knowledge of its own says what its host's row says."""
    assert dialect("openai").limits == find("openai").limits
    assert dialect("cohere").limits == Limits(max_texts=96)


def test_struct_and_numpy_agree_on_base64():
    """Base64 of little-endian float32, as OpenAI sends it, is read as struct and numpy read it."""
    assert decode(data("AACAPwAAAAAAAIC/"), 1).vectors.tolist() == [[1.0, 0.0, -1.0]]
    assert decode(data("mpkZP83MTD8="), 1).vectors.tobytes() == struct.pack("<2f", 0.6, 0.8)
