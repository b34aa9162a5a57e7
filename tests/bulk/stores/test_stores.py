"""What every store does, seen through its own client."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from embedkit._bulk.sources.rows import Line
from embedkit._bulk.stores import StoreError, base, open_store
from embedkit.codec.vector_math import missing_rows
from embedkit.errors import ConfigError
from tests.support.stores import WIDTH, params, vectors

every_store = pytest.mark.parametrize("real", params(), indirect=True)


def records(start, count):
    return [{"text": f"text {row}", "id": f"k{row}"} for row in range(start, start + count)]


def opened(url, state=None, width=WIDTH, like=None, folder=None, **keywords):
    store = open_store(url, **{"key": "id", **keywords})
    try:
        store.begin(folder, missing_rows(0, width, "float32") if like is None else like, state)
    except BaseException:
        store.close()
        raise
    return store


def put(store, start, count, failures=None, pieces=None, rows=None):
    given = records(start, count) if pieces is None else None
    keys = [record["id"] for record in given] if pieces is None else pieces[1]
    store.write(
        [given] if pieces is None else pieces[0],
        vectors(start, count) if rows is None else rows,
        failures or {},
        keys if store.setup.keyed else None,
    )


def job(url, start=0, count=5, failures=None, **keywords):
    """One job from its beginning to its end."""
    store = opened(url, **keywords)
    try:
        put(store, start, count, failures)
        store.sync()
        store.finish({"embedkit.model": "fake:m"})
    finally:
        store.close()


@every_store
def test_rows_are_there_with_their_records(real, tmp_path):
    """Key, vector and record of every row, read by the store's own client."""
    url = real.url(tmp_path)
    job(url)
    found = real.rows(url)

    assert set(found) == {"k0", "k1", "k2", "k3", "k4"}
    assert [found[f"k{row}"].record for row in range(5)] == records(0, 5)
    assert np.array_equal(np.array([found[f"k{row}"].vector for row in range(5)], np.float32), vectors(0, 5))


@every_store
def test_the_nearest_vectors_are_found(real, tmp_path):
    """A query by cosine finds the row itself first."""
    url = real.url(tmp_path)
    job(url, count=50)

    for row in (0, 17, 49):
        assert real.nearest(url, vectors(row, 1)[0])[0] == f"k{row}"


@every_store
def test_rows_of_no_key_have_their_number(real, tmp_path):
    """Without a key column the row's number is the key, across blocks and a resumption."""
    url = real.url(tmp_path)
    store = opened(url, key=None)
    put(store, 0, 3)
    put(store, 3, 2)
    state = store.sync()
    store.close()
    store = opened(url, state, key=None)
    put(store, 5, 2)
    store.sync()
    store.close()

    assert state["rows"] == 5
    assert set(real.rows(url)) == set(range(7))
    assert real.nearest(url, vectors(6, 1)[0])[0] == 6


@pytest.mark.parametrize("real", params("lancedb"), indirect=True)
def test_flushes_do_not_pile_up(real, tmp_path, monkeypatch):
    """LanceDB is compacted on the way, its keys are indexed, and rows that come again are still found."""
    from datetime import timedelta

    from embedkit._bulk.stores import lance

    monkeypatch.setattr(lance, "TIDY", 4)
    monkeypatch.setattr(lance, "KEPT", timedelta(milliseconds=1))
    url = real.url(tmp_path)
    store = opened(url)
    for start in range(0, 70, 7):
        put(store, start, 14)
        store.sync()
    store.close()
    table = real.open(url)

    assert set(real.rows(url)) == {f"k{row}" for row in range(77)}
    assert len(table.list_versions()) < 10
    assert [index.columns for index in table.list_indices()] == [["key"]]


@every_store
def test_a_row_that_comes_again_replaces_the_old_one(real, tmp_path):
    """By key, across jobs and within one write; other rows stay."""
    url = real.url(tmp_path)
    job(url, count=6)
    store = opened(url)
    given = [{"text": "new", "id": "k1"}, {"text": "other", "id": "new"}, {"text": "newest", "id": "k1"}]
    store.write([given[:1], given[1:]], vectors(100, 3), {}, ["k1", "new", "k1"])
    store.sync()
    store.close()
    found = real.rows(url)

    assert len(found) == 7
    assert found["k1"].record == {"text": "newest", "id": "k1"}
    assert found["k2"].record == {"text": "text 2", "id": "k2"}
    assert real.nearest(url, vectors(102, 1)[0])[0] == "k1"
    assert real.nearest(url, vectors(101, 1)[0])[0] == "new"


@every_store
def test_a_failed_row_has_no_vector_and_its_reason(real, tmp_path):
    """It is there with `embedding_error`, replaces a good row of its key, and is replaced by one."""
    url = real.url(tmp_path)
    job(url, count=4, failures={1: "too long"})
    first = real.rows(url)
    store = opened(url)
    put(store, 0, 4, {2: "refused"})
    store.sync()
    store.close()
    found = real.rows(url)

    assert (first["k1"].vector, first["k1"].error) == (None, "too long")
    assert found["k1"].vector is not None
    assert found["k1"].error is None
    assert (found["k2"].vector, found["k2"].error, found["k2"].record) == (None, "refused", records(2, 1)[0])
    assert "k2" not in real.nearest(url, vectors(2, 1)[0])


@every_store
def test_rows_after_the_last_sync_may_come_again(real, tmp_path):
    """What a killed job wrote beyond its journal is written once more in its place."""
    url = real.url(tmp_path)
    store = opened(url)
    put(store, 0, 3)
    state = store.sync()
    put(store, 3, 3)
    store.sync()  # the journal never heard of it
    store.close()
    store = opened(url, state)
    put(store, 3, 4)
    store.sync()
    store.finish({})
    store.close()

    assert set(real.rows(url)) == {f"k{row}" for row in range(7)}


@every_store
def test_nothing_is_written_before_a_flush(real, tmp_path):
    """`close` without `sync` leaves out what was not synced."""
    url = real.url(tmp_path)
    store = opened(url)
    put(store, 0, 3)
    store.sync()
    put(store, 3, 3)
    store.close()
    store.close()

    assert set(real.rows(url)) == {"k0", "k1", "k2"}


@every_store
def test_many_small_writes_are_flushed_on_their_way(real, tmp_path, monkeypatch):
    """Rows do not pile up in memory until `sync`."""
    monkeypatch.setattr(base, "FLUSH_ROWS", 20)
    url = real.url(tmp_path)
    store = opened(url)
    for start in range(0, 90, 9):
        put(store, start, 9)
        assert store._held_rows < 20 + 9
    store.sync()
    store.close()

    assert set(real.rows(url)) == {f"k{row}" for row in range(90)}


@every_store
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 8}, "width 16 there, 8 here"),
        ({"dtype": "int8"}, "dtype 'float32' there, 'int8' here"),
        ({"metric": "l2"}, "metric 'cosine' there, 'l2' here"),
        ({"key": None}, "keys 'text' there, 'integer' here"),
        ({"made_by": {"model": "b"}}, "model 'a' there, 'b' here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_table_of_other_vectors_is_refused(real, tmp_path, change, said):
    """What differs is named, and nothing in the table is touched."""
    url = real.url(tmp_path)
    job(url, made_by={"model": "a"})
    before = real.rows(url)

    with pytest.raises(ConfigError, match=said):
        opened(url, **change)
    assert real.rows(url) == before


@every_store
def test_a_look_refuses_before_anything_is_paid_for(real, tmp_path):
    """`exists` asks the store before the width is known."""
    url = real.url(tmp_path)
    assert open_store(url, key="id").exists() is False
    job(url)

    assert open_store(url, key="id").exists() is False  # rows are added
    with pytest.raises(ConfigError, match="keys 'text' there, 'integer' here"):
        open_store(url).exists()
    store = open_store(url, key="id")
    store.expect({"embedkit.model": "fake:m", "embedkit.options": '{"dtype":"uint8"}'})
    with pytest.raises(ConfigError, match="dtype 'float32' there, 'uint8' here"):
        store.exists()


@every_store
def test_rows_by_number_are_not_replaced_unasked(real, tmp_path):
    """Another input's row 0 is not this one's."""
    url = real.url(tmp_path)
    job(url, key=None)

    assert open_store(url).exists() is True


@every_store
def test_a_finished_job_s_words_are_in_the_table(real, tmp_path):
    """Metadata of the last job, and what made the vectors."""
    url = real.url(tmp_path)
    job(url, made_by={"model": 'it\'s \\ "a"'})
    store = open_store(url, key="id")
    label = store.label()
    store.close()

    assert label.job == {"embedkit.model": "fake:m"}
    assert label.made_by == {"model": 'it\'s \\ "a"'}
    assert (label.width, label.dtype, label.metric, label.keys) == (WIDTH, "float32", "cosine", "text")


@every_store
def test_only_rows_with_this_text_are_unchanged(real, tmp_path):
    """Not a row of another text, not one that failed, not one that is not there; asked before `begin`."""
    url = real.url(tmp_path)
    empty = open_store(url, key="id")
    assert empty.unchanged(["k0"], ["text 0"]) == set()
    empty.close()
    job(url, count=4, failures={2: "too long"})
    store = open_store(url, key="id")
    found = store.unchanged(
        ["k0", "k1", "k2", "k3", "nobody", None, "k3"], ["text 0", "other", "text 2", "text 3", "text 9", "x", None]
    )
    store.close()

    assert found == {0, 3}


@every_store
def test_what_is_unchanged_is_asked_of_many(real, tmp_path):
    """More keys than one question of any store holds."""
    url = real.url(tmp_path)
    rows = 1_100
    job(url, count=rows)
    store = open_store(url, key="id")
    found = store.unchanged([f"k{row}" for row in range(-5, rows)], [f"text {row}" for row in range(-5, rows)])
    store.close()

    assert found == set(range(5, rows + 5))


KEYS = ["", " ", "'", '"; DROP TABLE embeddings; --', "ä\u2028", "a" * 500, "\\", "%s", "?", "{table}", "$1", "7"]


@every_store
def test_any_key_is_a_key(real, tmp_path):
    """Quotes, marks of parameters, blanks: found again as they are."""
    url = real.url(tmp_path)
    store = opened(url)
    store.write([[{"text": key} for key in KEYS]], vectors(0, len(KEYS)), {}, KEYS)
    store.sync()
    assert store.unchanged(KEYS, KEYS) == set(range(len(KEYS)))
    store.close()

    assert set(real.rows(url)) == set(KEYS)


@every_store
def test_keys_of_other_types_are_text(real, tmp_path):
    """7 and "7" are one key, as CSV and JSON have it; what is no text is JSON."""
    url = real.url(tmp_path)
    keys = [7, "7", 7.5, True, [1], 2**70]
    store = opened(url)
    store.write([[{"text": "x"}] * 6], vectors(0, 6), {}, keys)
    store.sync()
    store.close()

    assert set(real.rows(url)) == {"7", "7.5", "true", "[1]", str(2**70)}


@every_store
def test_a_row_without_a_key_is_refused_by_its_number(real, tmp_path):
    """Unless it failed anyway: then it is left out."""
    url = real.url(tmp_path)
    store = opened(url, {"rows": 0})
    store.write([[{"text": "a"}, {"text": None}]], vectors(0, 2), {1: "no text"}, ["a", None])
    with pytest.raises(ConfigError, match="row 3: its key is null"):
        store.write([[{"text": "a"}, {"text": "b"}]], vectors(0, 2), {}, ["b", None])
    store.sync()
    store.close()

    assert set(real.rows(url)) == {"a"}


GARBAGE = [
    {"text": "nul \0 in \\u0000 it", "n": float("nan")},
    {"text": "half \ud800", "deep": {"a": [1, {"b": None}]}},
    {"text": "big", "n": 2**70, "m": -(2**63) - 1},
    {"text": "", "n": 1, "key": "mine", "embedding": "mine", "record": "mine", "Text": "other case", "a.b": 1, "": 2},
    {"text": "t", "n": "a word", "m": True, 'it\'s "odd"': 1},
    {},
]


@every_store
@pytest.mark.parametrize("start", range(len(GARBAGE)), ids=str)
def test_no_record_is_refused(real, tmp_path, start):
    """Whatever stands in records, and whichever comes first: each is there, and numbers and words as they were."""
    url = real.url(tmp_path)
    given = GARBAGE[start:] + GARBAGE[:start]
    keys = [str((row + start) % len(GARBAGE)) for row in range(len(given))]
    store = opened(url)
    for record, key in zip(given, keys, strict=True):
        store.write([[record]], vectors(0, 1), {}, [key])
        store.sync()
    store.finish({})
    store.close()
    found = real.rows(url)

    assert set(found) == set(keys)
    assert found["2"].record["text"] == "big"
    assert found["4"].record["n"] == "a word"
    assert found["4"].record["m"] is True
    assert found["4"].record['it\'s "odd"'] == 1
    assert found["3"].record["Text"] == "other case"
    assert found["3"].record["key"] == "mine"
    assert found["3"].record["a.b"] == 1
    assert found["1"].record["deep"] == {"a": [1, {"b": None}]}


@every_store
def test_lines_of_json_are_kept_as_records(real, tmp_path):
    """A record that is still the line it came from."""
    line = Line({"text": "a", "n": 1.5})
    line.source = b'{"text":"a","n":1.5}'
    url = real.url(tmp_path)
    store = opened(url)
    store.write([[line]], vectors(0, 1), {}, ["a"])
    store.sync()
    store.close()

    assert real.rows(url)["a"].record == {"text": "a", "n": 1.5}


@every_store
def test_columns_of_arrow_are_kept(real, tmp_path):
    """Batches of Parquet, their nulls and nested values; a later batch may have other columns."""
    first = pa.RecordBatch.from_pydict(
        {
            "text": pa.array(["a", "b"], pa.large_string()),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "tags": pa.array([["t"], []], pa.list_(pa.string())),
            "of": pa.array([{"p": 1}, None]),
        }
    )
    later = pa.RecordBatch.from_pydict({"text": pa.array(["c"]), "kind": pa.array([5]), "more": pa.array([1.5])})
    url = real.url(tmp_path)
    store = opened(url)
    store.write([first[:1], first[1:]], vectors(0, 2), {}, ["a", "b"])
    store.write([later], vectors(2, 1), {}, ["c"])
    assert store.unchanged(["a", "c"], ["a", "c"]) == set()
    store.sync()
    store.write([later], vectors(2, 1), {}, ["d"])
    store.sync()
    assert store.unchanged(["a", "c"], ["a", "c"]) == {0, 1}
    store.close()
    found = {key: {k: v for k, v in row.record.items() if v is not None} for key, row in real.rows(url).items()}

    assert found == {
        "a": {"text": "a", "kind": "x", "tags": ["t"], "of": {"p": 1}},
        "b": {"text": "b", "tags": []},
        "c": {"text": "c", "kind": 5, "more": 1.5},
        "d": {"text": "c", "kind": 5, "more": 1.5},
    }


@pytest.mark.parametrize("real", params("lancedb", "duckdb"), indirect=True)
def test_fields_are_columns_of_their_types(real, tmp_path):
    """Where a store has columns for what JSON and Arrow say, they are used."""
    url = real.url(tmp_path)
    store = opened(url)
    store.write([[{"text": "a", "n": 1, "x": 1.5, "yes": True, "o": {}}]], vectors(0, 1), {}, ["a"])
    store.sync()
    store.close()
    if type(real).__name__ == "Duck":
        with real.open(url) as (db, table):
            kinds = {row[0]: row[1] for row in db.execute(f'DESCRIBE "{table}"').fetchall()}
        assert kinds["text"], kinds["n"] == ("VARCHAR", "BIGINT")
        assert (kinds["x"], kinds["yes"], kinds["embedding"]) == ("DOUBLE", "BOOLEAN", "FLOAT[16]")
    else:
        schema = real.open(url).schema
        assert (schema.field("text").type, schema.field("n").type) == (pa.string(), pa.int64())
        assert (schema.field("x").type, schema.field("yes").type) == (pa.float64(), pa.bool_())
        assert schema.field("embedding").type == pa.list_(pa.float32(), WIDTH)


@every_store
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_whole_numbers_are_vectors(real, tmp_path, dtype):
    """Quantized vectors are kept exactly and can be searched."""
    url = real.url(tmp_path)
    low = -127 if dtype == "int8" else 0
    rows = np.random.default_rng(1).integers(low, 127, (9, WIDTH)).astype(dtype)
    store = opened(url, like=rows[:0], dtype=dtype, metric="l2")
    put(store, 0, 9, {4: "bad"}, rows=rows)
    store.sync()
    store.close()
    found = real.rows(url)

    assert found["k4"].vector is None
    assert [found[f"k{row}"].vector for row in range(9) if row != 4] == [
        rows[row].tolist() for row in range(9) if row != 4
    ]


@every_store
@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_packed_bits_are_bits(real, tmp_path, dtype):
    """Eight components a byte, the most significant first; `binary` is `ubinary` minus 128. Qdrant has none."""
    url = real.url(tmp_path)
    bits = np.random.default_rng(2).integers(0, 2, (5, 16))
    packed = np.packbits(bits, axis=1)
    rows = packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    if type(real).__name__ == "Qdrant":
        with pytest.raises(ConfigError, match="cannot hold dtype"):
            open_store(url, key="id", dtype=dtype)
        return
    store = opened(url, like=rows[:0], dtype=dtype)
    put(store, 0, 5, rows=rows)
    store.sync()
    store.close()
    found = real.rows(url)

    for row in range(5):
        held = found[f"k{row}"].vector
        unpacked = list(held) if len(held) == 16 else np.unpackbits(np.array(held, np.uint8)).tolist()
        assert unpacked == bits[row].tolist()


@every_store
def test_no_rows_of_a_known_width_are_an_empty_table(real, tmp_path):
    """It can be added to."""
    url = real.url(tmp_path)
    job(url, count=0)
    assert real.rows(url) == {}
    job(url, count=2)

    assert set(real.rows(url)) == {"k0", "k1"}


@every_store
def test_rows_of_no_known_width_are_left_out(real, tmp_path):
    """Where every row failed there is no vector, and no table of them."""
    url = real.url(tmp_path)
    store = opened(url, width=0)
    store.write([records(0, 2)], missing_rows(2, 0, "float32"), {0: "bad", 1: "bad"}, ["k0", "k1"])
    assert store.sync() == {"rows": 2}
    store.finish({})
    assert store.label() is None
    store.close()


@every_store
def test_a_table_that_is_gone_is_told(real, tmp_path):
    """Rows that the journal knows cannot be found again: the job must begin anew."""
    with pytest.raises(ConfigError, match="the table is gone"):
        opened(real.url(tmp_path), {"rows": 7})


@pytest.mark.parametrize("real", params("sqlite", "duckdb", "postgresql"), indirect=True)
@pytest.mark.parametrize("table", ["with blank", 'quo"te', "'; --", "größe", "SELECT", "%s"])
def test_names_of_tables_are_quoted(real, tmp_path, table):
    """Whatever SQL would make of them."""
    url = real.url(tmp_path, table)
    job(url)
    job(url)

    assert len(real.rows(url)) == 5


@every_store
def test_several_tables_in_one_place(real, tmp_path):
    """Each has its own vectors."""
    one = real.url(tmp_path)
    other = one.replace("#embeddings", "#others")
    job(one)
    job(other, width=WIDTH, count=2, metric="l2")

    assert (len(real.rows(one)), len(real.rows(other))) == (5, 2)


@every_store
def test_a_job_writes_from_several_threads(real, tmp_path):
    """One after the other, as `aside` calls them."""
    from concurrent.futures import ThreadPoolExecutor

    url = real.url(tmp_path)
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        store = first.submit(opened, url).result()
        second.submit(put, store, 0, 3).result()
        first.submit(put, store, 3, 3).result()
        assert second.submit(store.sync).result() == {"rows": 6}
        first.submit(store.finish, {}).result()
        second.submit(store.close).result()

    assert len(real.rows(url)) == 6


@pytest.mark.parametrize("real", params("sqlite", "duckdb", "postgresql"), indirect=True)
def test_somebody_else_s_table_is_refused(real, tmp_path):
    """A table that no job has made is not written to."""
    url = real.url(tmp_path)
    if type(real).__name__ == "Duck":
        import duckdb

        with duckdb.connect(url.partition(":")[2].rpartition("#")[0]) as db:
            db.execute("CREATE TABLE embeddings (key VARCHAR, body VARCHAR)")
    else:
        with real.open(url) as (db, table):
            db.execute(f"CREATE TABLE {table} (key text, body text)")
    with pytest.raises(ConfigError, match="no job of embedkit has made it"):
        opened(url)


@pytest.mark.parametrize("real", params("sqlite", "duckdb", "qdrant", "lancedb"), indirect=True)
def test_a_missing_folder_is_named(real, tmp_path):
    """Before anything is sent."""
    with pytest.raises(ConfigError, match="there is no folder"):
        open_store(real.url(tmp_path / "nowhere"), key="id").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Qdrant's client leaves a file open
@pytest.mark.parametrize("real", params("duckdb", "qdrant"), indirect=True)
def test_a_store_of_one_process_says_who_has_it(real, tmp_path):
    """A second job is told so, and can go on later."""
    import subprocess
    import sys

    url = real.url(tmp_path)
    code = "import sys; from tests.bulk.stores.test_stores import opened; s = opened(sys.argv[1]); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, url], stdin=-1, stdout=-1) as child:
        assert child.stdout.readline() == b"there\n"
        with pytest.raises(StoreError, match=r"lock|already accessed"):
            opened(url)
        child.stdin.close()
    opened(url).close()


def test_labels_survive_json():
    """What one version writes, it reads; what nobody wrote is no label."""
    label = base.Label(keys="text", width=3, dtype="int8", metric="l2", made_by={"a": "ä"}, job={"b": '"'})

    assert base.label_from(label.json()) == label
    for other in (None, "", "null", "3", "[]", "{", '{"embedkit": {"width": 3}}', msgspec.json.encode("x").decode()):
        assert base.label_from(other) is None
