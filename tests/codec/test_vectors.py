"""Reading embeddings: exactly what the text says, at any length, and nothing that is no embedding."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit._types import Options
from embedkit.codec import pool_tokens, vector_values
from embedkit.codec import vectors as vectors_module
from embedkit.codec.vectors import LONG, Vector, decode_json, decoder_of, matrix
from embedkit.errors import DecodeError

PAD = ", 0.25" * LONG  # makes any list long enough to be lifted


class Item(msgspec.Struct):
    embedding: Vector
    index: int | None = None
    note: str | None = None


class Doc(msgspec.Struct):
    data: list[Item] = []
    shape: list[int] | None = None
    message: str | None = None


def rows_of(body: str, options: Options | None = None) -> np.ndarray:
    vectors = decode_json(body.encode(), decoder_of(list[Vector]))
    return matrix(vectors, options or Options(), len(vectors))


def plain(body: bytes, kind: Any) -> Any:
    """`decode_json` as it would be without lifting."""
    return parse_with(10**9, body, kind)


def parse_with(size: int, body: bytes, kind: Any) -> Any:
    """`decode_json`, lifting whatever has this many bytes, from a small body too."""
    before = vectors_module.LONG, vectors_module.STRIDE, vectors_module.SMALL
    vectors_module.LONG, vectors_module.STRIDE, vectors_module.SMALL = size, size, 0
    try:
        return decode_json(body, decoder_of(kind))
    finally:
        vectors_module.LONG, vectors_module.STRIDE, vectors_module.SMALL = before


doubles = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
texts = st.one_of(
    doubles.map(repr),
    singles.map(lambda value: str(np.float32(value))),  # the shortest text that names this float32
    st.integers(-(10**25), 10**25).map(str),
    st.builds(
        "{}{}.{}e{}".format,
        st.sampled_from(["", "-"]),
        st.integers(0, 10**20),
        st.integers(0, 10**20),
        st.integers(-400, 30),
    ),
    st.builds("{}E+{}".format, st.integers(-999, 999), st.integers(0, 30)),
    st.sampled_from(
        ["-0.0", "0", "5e-324", "1e-46", "1.4e-45", "7.006492321624086e-46", "1e-400", "1.00000005960464478"]
    ),
).filter(lambda text: abs(float(text)) < float(np.finfo(np.float32).max) and text != "-0")


@given(st.lists(texts, min_size=1, max_size=40))
def test_every_number_is_float_of_its_text_as_float32(row):
    """However a number is written, its value is that of Python's float(), rounded to float32."""
    expected = np.array([float(text) for text in row], np.float64).astype(np.float32)
    long = [*row, *["0.5"] * LONG]
    short = ",".join(row)

    found = rows_of(f"[[{','.join(long)}]]")[0, : len(row)]
    assert found.tobytes() == expected.tobytes()
    assert matrix(plain(f"[[{short}]]".encode(), list[Vector]), Options(), 1)[0].tobytes() == expected.tobytes()


def test_the_double_in_between_can_move_the_last_bit():
    """Text is rounded twice, to double, then to float32: a value just above a middle may go to the even neighbor."""
    text = "1.0000000596046447754"  # 2**-24 above 1 and a hair more; the hair is lost in the double

    assert rows_of(f"[[{text}{PAD}]]")[0, 0] == np.float32(float(text)) == np.float32(1.0)


@given(st.lists(singles, min_size=16, max_size=64))
def test_floats_survive_their_shortest_text_and_base64_alike(row):
    """A float32 comes back bit for bit from its shortest text, from the text of its double and from base64."""
    values = np.array(row, np.float32)
    encoded = base64.b64encode(values.astype("<f4").tobytes()).decode()
    spellings = [
        "[" + ",".join(map(str, values)) + "]",
        json.dumps(values.astype(np.float64).tolist(), indent=2),
        json.dumps(encoded).replace("/", "\\/"),  # as PHP writes it
    ]

    for spelling in spellings:
        assert rows_of(f"[{spelling}]")[0].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("dtype", "kind", "wide"),
    [("int8", np.int8, 100), ("uint8", np.uint8, 100), ("binary", np.int8, 48), ("ubinary", np.uint8, 48)],
)
def test_small_dtypes_come_whole_from_lists_and_base64(dtype, kind, wide):
    """Integers and packed bits are read exactly, whichever way they are written."""
    values = np.random.default_rng(7).integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, (3, wide)).astype(kind)
    listed = json.dumps(values.tolist())
    encoded = json.dumps([base64.b64encode(row.tobytes()).decode() for row in values])

    for body in (listed, encoded):
        found = rows_of(body, Options(dtype=dtype))
        assert found.dtype == kind
        assert (found == values).all()


def test_lists_and_base64_may_stand_side_by_side():
    """One reply may hold numbers, base64 floats and short lists; each row is read for itself."""
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    encoded = base64.b64encode(values.tobytes()).decode()
    body = json.dumps([encoded, values.astype(float).tolist(), [0] * 64, encoded])

    assert (rows_of(body) == np.stack([values, values, values * 0, values])).all()


JUNK = {
    "null": "null", "a string": '"0.1"', "a boolean": "true", "NaN": "NaN", "Infinity": "Infinity", "minus infinity": "-Infinity",
    "beyond double": "1e999", "nested": "[0.5]", "nested empty": "[]", "an object": '{"a": 1}', "no digits": "-", "a leading zero": "01",
    "a leading plus": "+1", "a bare point": "1.", "nothing": "", "hexadecimal": "0x10", "a word": "nil", "a name of ours": '"#0"',
    "beyond float32": "1e39", "a bracket in a string": '"]"', "an opening bracket in a string": '"["',
}  # fmt: skip


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("filler", ["0.5, 0.5", "0.5" + PAD], ids=["short", "long"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_list_with_junk_in_it_is_refused(junk, filler, place):
    """A value that is no finite float32 number is a DecodeError, in the middle of a long list as in a short one."""
    row = {"first": f"[{junk}, {filler}]", "middle": f"[{filler}, {junk}, {filler}]", "last": f"[{filler}, {junk}]"}[
        place
    ]
    good = row.replace(junk, "0.5") if junk else "[0.5]"
    body = f'{{"data": [{{"embedding": {good}}}, {{"embedding": {row}}}]}}'

    with pytest.raises((DecodeError, msgspec.DecodeError)):
        rows_of_doc(body)


def rows_of_doc(body: str) -> np.ndarray:
    vectors = [item.embedding for item in decode_json(body.encode(), decoder_of(Doc)).data]
    return matrix(vectors, Options(), len(vectors))


@pytest.mark.parametrize("encoded", ["AAAA", "AACAPw=", "AACA Pw==", "AACAPw==x", "AACA-_==", "ÄÖÜß", "#0", ""])
def test_a_string_that_is_no_base64_of_whole_values_is_refused(encoded):
    """Base64 of a wrong length, with a foreign character or of part of a float is a DecodeError with its row."""
    with pytest.raises(DecodeError):
        rows_of(json.dumps([encoded]))
    with pytest.raises(DecodeError) as caught:
        rows_of(json.dumps(["AACAPwAAgD8=", encoded]))
    assert caught.value.rows == (1,)


@pytest.mark.parametrize("value", ["5", "null", "true", '{"values": [1]}'])
def test_what_is_no_embedding_at_all_is_named(value):
    """A number, null or an object in an embedding's place is refused, with the place."""
    with pytest.raises(msgspec.ValidationError, match=r"Expected an embedding, got `.*` - at `\$\[1\]`"):
        decode_json(f"[[0.5], {value}]".encode(), decoder_of(list[Vector]))


def test_escaped_base64_is_read_wherever_it_is_long():
    """A slash that was escaped, as PHP does, is unescaped in a string of any length."""
    values = np.full(512, -1.9999, np.float32)
    encoded = json.dumps(base64.b64encode(values.tobytes()).decode()).replace("/", "\\/")

    for size in (256, 10**9):
        (vector,) = parse_with(size, f"[{encoded}]".encode(), list[Vector])
        assert (matrix([vector], Options(), 1) == values).all()


def encoded(values: np.ndarray, code: str) -> str:
    return json.dumps([base64.b64encode(row.astype(code).tobytes()).decode() for row in values])


def test_doubles_in_base64_are_told_from_floats():
    """Doubles are recognized by the width asked for, or by the zeros of doubles made from floats."""
    values = np.random.default_rng(5).standard_normal((3, 48)).astype(np.float32)
    unit = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    quiet = np.zeros((1, 48), np.float32)

    assert (rows_of(encoded(values, "<f8"), Options(dimensions=48)) == values).all()
    assert (rows_of(encoded(unit, "<f8")) == unit).all()
    assert (rows_of(encoded(unit, "<f4")) == unit).all()
    assert rows_of(encoded(values, "<f8")).shape == (3, 96)  # neither told nor of unit length: what was asked for
    assert rows_of(encoded(quiet, "<f4")).shape == (1, 48)
    assert rows_of(encoded(unit, "<f4"), Options(dimensions=48)).shape == (3, 48)


@pytest.mark.parametrize("value", [1.5, 1e38])
def test_floats_that_look_like_doubles_stay_floats(value):
    """Floats whose every second word ends in zeros are doubles only if they are of unit length as such."""
    values = np.tile(np.array([0.0, value], np.float32), 32)[None]

    assert (rows_of(encoded(values, "<f4")) == values).all()


@pytest.mark.parametrize("dtype", ["float32", "binary"])
def test_another_width_than_the_one_asked_for_is_refused(dtype):
    """A reply of another width is refused, bits counted as components, and no row is blamed for it."""
    body = encoded(np.ones((2, 16)), "<f4" if dtype == "float32" else "i1")
    with pytest.raises(DecodeError, match="dimensions=64 was asked for") as caught:
        rows_of(body, Options(dimensions=64, dtype=dtype))

    assert caught.value.rows == ()


def test_numbers_after_base64_are_measured_in_values():
    """A list is not as wide as the base64 before it because it has as many values as that has bytes."""
    good = base64.b64encode(np.ones(16, "<f4").tobytes()).decode()
    for wide in (15, 17, 64):
        with pytest.raises(DecodeError, match="width") as caught:
            rows_of(json.dumps([good, [0.5] * wide]))
        assert caught.value.rows == (1,)
    assert (rows_of(json.dumps([good, [0.5] * 16, good])).sum(axis=1) == [16, 8, 16]).all()


@pytest.mark.parametrize("long", [False, True])
def test_an_odd_width_names_its_row(long):
    """A row of another width than the first is a DecodeError with its number, even if it is a single value."""
    wide = "0.5" + PAD if long else "0.5, 0.5"
    for other in ("0.5", f"{wide}, 0.5"):
        with pytest.raises(DecodeError, match="width") as caught:
            rows_of(f"[[{wide}],[{wide}],[{other}]]")
        assert caught.value.rows == (2,)


@pytest.mark.parametrize(
    ("dtype", "value"), [("int8", "128"), ("int8", "0.5"), ("uint8", "-1"), ("ubinary", "256"), ("int8", "1e9")]
)
def test_a_number_outside_its_dtype_names_its_row(dtype, value):
    """A value that the asked dtype cannot hold is refused, never wrapped round."""
    body = f"[[1{', 1' * LONG}],[{value}{', 1' * LONG}]]"

    with pytest.raises(
        DecodeError, match=f"not a value of {dtype.removeprefix('u') if dtype == 'int8' else 'uint8'}"
    ) as caught:
        rows_of(body, Options(dtype=dtype))
    assert caught.value.rows == (1,)


@pytest.mark.parametrize(
    "body",
    [
        '{"data":[{"embedding":[0.5%s],"note":"see [0.5%s]"}]}',  # the brackets of a string
        '{"data":[{"embedding":[0.5%s],"note":"a \\" and [0.5%s]"}]}',
        '{"data":[{"note":"\\\\[0.5%s]","embedding":[1.5%s]}]}',
        '{"message":"[1%s","data":[{"embedding":[2.5%s]}]}',
        '{"data":[{"embedding":[0.5%s]}],"shape":[1%s]}',  # a long list that is no vector
        '{"data":[{"embedding":[0.5%s]}],"[0.5%s]":1}',
    ],
)
def test_a_list_that_is_no_embedding_changes_nothing(body):
    """Brackets inside strings, and lists where no vector belongs, are read as they stand."""
    integers = ", 1" * LONG
    body = (body % (integers, integers)).encode()
    lifted, whole = decode_json(body, decoder_of(Doc)), plain(body, Doc)

    assert [vector_values(item.embedding).tolist() for item in lifted.data] == [
        item.embedding.text for item in whole.data
    ]
    assert (lifted.shape, lifted.message, [item.note for item in lifted.data]) == (
        whole.shape, whole.message, [item.note for item in whole.data],
    )  # fmt: skip


BASE64 = base64.b64encode(np.linspace(-1, 1, 256, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "body",
    [
        '{"data":[{"embedding":"%s","index":0}],"message":"%s"}',  # a long string where no vector belongs
        '{"data":[{"embedding":"%s","note":"%s"}]}',
        '{"message":"\\"","data":[{"embedding":"%s","note":"%s"}]}',
        '{"message":"[,","shape":[1],"other":"%s","data":[{"embedding":"%s"}]}',
        '{"data":[{"embedding":"%s"},{"embedding":"%s"}],"message":" , "}',
        '[{"embedding":"%s"},{"embedding":"%s"}]',
    ],
)
def test_a_string_that_is_no_embedding_changes_nothing(body):
    """Long strings elsewhere, escaped quotes and quotes that only look like a beginning are read as they are."""
    body = (body % (BASE64, BASE64)).encode()
    kind = list[Item] if body.startswith(b"[") else Doc
    lifted, whole = parse_with(256, body, kind), plain(body, kind)
    items = [(found if kind is not Doc else found.data) for found in (lifted, whole)]

    assert [vector_values(item.embedding) for item in items[0]] == [
        base64.b64decode(item.embedding.text) for item in items[1]
    ]
    if kind is Doc:
        assert (lifted.message, lifted.data[0].note) == (whole.message, whole.data[0].note)


pieces = st.sampled_from(
    ["[0.5, 1, 2, 3, 4, 5]", '"AACAPwAAgD8AAIA/AACAPw=="', "[", "]", '"', "\\", ",", ":", "{", "}", "1", "#0", '"#0"', '{"data":[',
     '{"embedding":', ',"note":', ',"message":', "]}", " ", "null"]
)  # fmt: skip


@given(st.lists(pieces, max_size=14).map("".join))
def test_lifting_never_changes_what_is_read(text):
    """Over any jumble of JSON's pieces: with lifting the outcome is the one without it, value or refusal."""
    outcomes: list[list[object]] = [[], []]
    for outcome, size in zip(outcomes, (8, 10**9), strict=True):
        for kind in (Doc, list[Vector], Vector):
            try:
                found = parse_with(size, text.encode(), kind)
            except (msgspec.DecodeError, UnicodeDecodeError):
                outcome.append("refused")
            else:
                outcome.append(_told(found))

    assert outcomes[0] == outcomes[1]


def _told(found: Any) -> object:
    if isinstance(found, Doc):
        return [found.message, found.shape, *((item.note, item.index, _seen(item.embedding)) for item in found.data)]
    return [_seen(vector) for vector in (found if isinstance(found, list) else [found])]


def _seen(vector: Vector) -> object:
    try:
        made = vector_values(vector)
    except DecodeError:
        return "refused"
    return made if isinstance(made, bytes) else made.tolist()


@pytest.mark.parametrize(
    "body",
    [
        '{"data":[{"embedding":"%s"},{"embedding":"#"},{"embedding":"%s"}]}',  # the mark itself, as base64
        # one too few for the marks, one too many for the rest
        '{"data":[{"embedding":"%s","note":"%s"},{"embedding":"#"}]}',
        '{"data":[{"embedding":"%s"}],"message":"#","extra":"%s"}',
    ],
)
def test_a_body_with_marks_of_its_own_is_read_as_it_stands(body):
    """What stands for something lifted may stand in a body already: then nothing is taken for something else."""
    body = (body % (BASE64, BASE64)).encode()
    lifted, whole = parse_with(256, body, Doc), plain(body, Doc)

    assert [item.embedding.text for item in lifted.data] == [item.embedding.text for item in whole.data]
    assert [item.note for item in lifted.data] == [item.note for item in whole.data]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("embedding", [[0.125] * 100, BASE64])
def test_what_is_long_is_lifted(embedding, indent):
    """A long list or string, pretty-printed or not, is still the reply's own bytes after parsing."""
    body = json.dumps(
        {"data": [{"embedding": embedding, "index": place} for place in range(20)]}, indent=indent
    ).encode()

    assert all(isinstance(item.embedding.text, memoryview) for item in decode_json(body, decoder_of(Doc)).data)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 3_000_000 + b"]",
        b"[1" * 2_000_000 + b"]",
        b"]" * 3_000_000,
        b"[ ] " * 1_000_000,
        b'"' * 2_000_001,
        b'" ' * 1_000_000,
    ],
)
def test_brackets_without_end_are_refused_in_linear_time(body):
    """A body of nothing but brackets is refused; searching each one's partner anew would take hours."""
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        decode_json(body, decoder_of(Doc))


def test_a_mark_may_be_written_as_an_escape():
    """Neither is it taken for a vector from elsewhere, nor does it go unnoticed."""
    long = [0.5] * LONG
    for extra in ([], long):
        body = (
            json.dumps({"data": [{"embedding": long}, {"embedding": "#"}], "extra": extra})
            .replace("#", "\\u0023")
            .encode()
        )
        found = decode_json(body, decoder_of(Doc)).data

        assert vector_values(found[0].embedding).tolist() == long
        assert found[1].embedding.text == "#"


def test_long_texts_before_numbers_do_not_hide_them():
    """Texts that an answer repeats (Cohere) may look like base64; the numbers behind them are lifted all the same."""
    body = json.dumps({"message": "x" * 1000, "data": [{"embedding": [0.125] * 100} for _ in range(40)]}).encode()

    assert all(isinstance(item.embedding.text, memoryview) for item in decode_json(body, decoder_of(Doc)).data)


def test_a_decoder_of_any_make_serves():
    """One made by msgspec alone reads what `decoder_of` would, short or long."""
    for count in (1, 20):
        body = json.dumps([BASE64] * count).encode()
        vectors = decode_json(body, msgspec.json.Decoder(list[Vector]))

        assert (matrix(vectors, Options(), count) == np.linspace(-1, 1, 256, dtype=np.float32)).all()


def test_doubles_in_base64_are_told_by_their_length():
    """Doubles that were never floats are read as what they are where the width is known."""
    values = np.random.default_rng(1).standard_normal((3, 256))
    vectors = [Vector(base64.b64encode(row.tobytes()).decode()) for row in values]

    assert np.allclose(matrix(vectors, Options(dimensions=256), 3), values, rtol=1e-6)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_body(wrap):
    """Bytes, bytearray and memoryview are read alike."""
    body = wrap(f"[[0.5{PAD}]]".encode())

    assert rows_of_any(body)[0, 0] == 0.5


def rows_of_any(body: Any) -> np.ndarray:
    return matrix(decode_json(body, decoder_of(list[Vector])), Options(), 1)


def test_threads_read_side_by_side():
    """Several threads decoding at once get each their own numbers."""
    wrong = []

    def work(seed: int) -> None:
        values = np.random.default_rng(seed).standard_normal((4, 300)).astype(np.float32)
        body = json.dumps(values.astype(float).tolist())
        wrong.extend(seed for _ in range(20) if not (rows_of(body) == values).all())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_rows_are_written_where_they_belong():
    """`out` says where the rows go, C-contiguous or not, and they are what is returned."""
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    bodies = [
        json.dumps(values.astype(float).tolist()),
        json.dumps([base64.b64encode(row.tobytes()).decode() for row in values]),
    ]
    for body in bodies:
        wide = np.zeros((2, 64), np.float32)
        target = wide[:, ::2]
        vectors = decode_json(body.encode(), decoder_of(list[Vector]))

        assert matrix(vectors, Options(), 2, lambda width, target=target: target[:, :width]).base is wide
        assert (wide[:, ::2] == values).all()
        assert not wide[:, 1::2].any()


def test_tokens_are_pooled_from_any_spelling():
    """Token vectors pool alike from long lists and from short ones."""
    tokens = decode_json(f"[[1.0{PAD}],[3.0{PAD}]]".encode(), decoder_of(list[Vector]))

    assert pool_tokens(tokens, "mean")[0] == 2.0
    assert pool_tokens(tokens, "cls")[0] == 1.0
    assert pool_tokens([[1.0, 2.0], [3.0, 4.0]], "last").tolist() == [3.0, 4.0]
