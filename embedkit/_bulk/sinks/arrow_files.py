"""Files of tables, Parquet and Arrow IPC: written group by group, and read back a batch at a time."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..._hints import NDArray
from ..disk import naming
from .spool import Spool
from .tables import ERROR, VECTOR, Widening, added_columns, as_text, cast, fitted, plain_type, table, without_vectors

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 1024  # rows whose columns get their type together, wherever a job was interrupted
GROUP_BYTES = 24 * 1024 * 1024  # of a row group, all columns: what is held in memory


class Format(Protocol):
    """How tables become a file."""

    suffix: str

    def writer(self, path: Path, schema: pa.Schema) -> Any:
        """A writer of pyarrow's: `write_table`, `close`."""

    def fit(self, table: pa.Table) -> pa.Table:
        """The table as the format can hold it."""

    def batches(self, path: Path, rows: int) -> Iterator[pa.RecordBatch]:
        """What is in a file, at most so many rows at a time."""

    def schema(self, path: Path) -> pa.Schema:
        """Of a file."""

    def count(self, path: Path) -> int:
        """The rows of a file."""


class Parquet:
    """Parquet, as pyarrow writes it. Vectors do not repeat and are not searched by range: no dictionary of them, no
    statistics. Runs and categories of lists become their values; what else Parquet cannot hold (intervals, unions, a
    year that its milliseconds do not reach) becomes text, as in JSON.
    """

    suffix = ".parquet"

    def writer(self, path: Path, schema: pa.Schema) -> Any:
        """See `Format`."""
        import pyarrow.parquet as pq

        names = [name for name in schema.names if name != VECTOR]
        return pq.ParquetWriter(path, schema, use_dictionary=names, write_statistics=names)

    def fit(self, table: pa.Table) -> pa.Table:
        """See `Format`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for place, field in enumerate(table.schema):
            column = table.column(place)
            if pa.types.is_run_end_encoded(field.type):
                column = pa.chunked_array(
                    [pc.run_end_decode(chunk) for chunk in column.chunks], type=field.type.value_type
                )
            if _has(lambda kind: pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type), field.type):
                column = cast(column, plain_type(field.type))
            if not _writable(column):
                column = as_text(column)
            if column is not table.column(place):
                table = table.set_column(place, field.with_type(column.type), column)
        return table

    def batches(self, path: Path, rows: int) -> Iterator[pa.RecordBatch]:
        """See `Format`."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows)

    def schema(self, path: Path) -> pa.Schema:
        """See `Format`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        # As it was given to the writer; the schema that Parquet makes of it has other names within lists.
        written = (pq.read_metadata(path).metadata or {}).get(b"ARROW:schema")
        return pq.read_schema(path) if written is None else pa.ipc.read_schema(pa.py_buffer(b64decode(written)))

    def count(self, path: Path) -> int:
        """See `Format`."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)


def _writable(column: pa.ChunkedArray) -> bool:
    """Whether Parquet can hold a column. Its type tells, but for seconds: Parquet has milliseconds."""
    import pyarrow as pa

    seconds = _has(lambda kind: pa.types.is_timestamp(kind) and kind.unit == "s", column.type)
    return _written_type(column.type) and (not seconds or _written_column(column))


@lru_cache(256)
def _written_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return _written_column(pa.chunked_array([], kind))


def _written_column(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(pa.table({"": column}), pa.BufferOutputStream())
    except (pa.ArrowException, OSError):  # in memory: what Parquet itself refuses
        return False
    return True


def _has(is_one: Callable[[pa.DataType], bool], kind: pa.DataType) -> bool:
    """Whether a type is one of these, or has one within."""
    return is_one(kind) or any(_has(is_one, kind.field(number).type) for number in range(kind.num_fields))


class Arrow:
    """Arrow IPC (Feather 2), not compressed, so that it maps into memory. Categories become their values: the format
    has one dictionary per column for the whole file. Unions become text, as in JSON: pyarrow (26.0) crashes when it
    is asked for their size.
    """

    suffix = ".arrow"

    def writer(self, path: Path, schema: pa.Schema) -> Any:
        """See `Format`."""
        return _ArrowWriter(path, schema)

    def fit(self, table: pa.Table) -> pa.Table:
        """See `Format`."""
        import pyarrow as pa

        for place, field in enumerate(table.schema):
            if _has(pa.types.is_union, field.type):
                text = as_text(table.column(place))
                table = table.set_column(place, field.with_type(text.type), text)
                continue
            plain = field.with_type(plain_type(field.type))
            if plain.type != field.type:
                table = table.set_column(place, plain, cast(table.column(place), plain.type))
        return table

    def batches(self, path: Path, rows: int) -> Iterator[pa.RecordBatch]:
        """See `Format`."""
        import pyarrow as pa

        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                for start in range(0, len(batch), rows):
                    yield batch.slice(start, rows)

    def schema(self, path: Path) -> pa.Schema:
        """See `Format`."""
        import pyarrow as pa

        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
            return file.schema

    def count(self, path: Path) -> int:
        """See `Format`."""
        return sum(len(batch) for batch in self.batches(path, 1 << 30))


class _ArrowWriter:
    """Writes batches as large as the tables are, and closes its file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, schema)

    def write_table(self, table: pa.Table, rows: int) -> None:
        self._writer.write_table(table.combine_chunks(), rows)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def write_spool(
    form: Format,
    spool: Spool,
    path: Path,
    like: NDArray[Any],
    widening: Widening,
    column: str,
    about: Mapping[str, str],
) -> None:
    """All rows of a spool as one file. Where a later row widens a column, the file is begun again once all types are
    known.

    Args:
        form: the file's.
        spool: the rows.
        path: of the file, which is replaced.
        like: no rows, of the vectors' type and width.
        widening: what holds the rows of earlier files; afterwards these, too.
        column: there in any case, also if the records have no field.
        about: metadata of the file.
    """

    def tables() -> Iterator[tuple[pa.Table, pa.Table]]:
        for pieces, vectors, failures in [([], like[:0], {})] if spool.empty else spool.read(CHUNK):
            yield form.fit(table(pieces, column)), added_columns(vectors, failures)

    while not _written(form, path, tables(), widening, about):
        pass


def rewrite(form: Format, path: Path, new: Path, widening: Widening) -> None:
    """A finished file, in the schema that holds the rows of all."""

    def tables() -> Iterator[tuple[pa.Table, pa.Table]]:
        import pyarrow as pa

        for batch in form.batches(path, CHUNK):
            found = pa.Table.from_batches([batch])
            yield found.drop_columns([VECTOR, ERROR]), found.select([VECTOR, ERROR])

    about = form.schema(path).metadata or {}
    while not _written(form, new, tables(), widening, about):
        pass


def _written(
    form: Format, path: Path, tables: Iterator[tuple[pa.Table, pa.Table]], widening: Widening, about: Mapping[Any, Any]
) -> bool:
    """Whether all rows are in the file; False: a later one widened a column, and `widening` knows."""
    writer: _GroupWriter | None = None
    try:
        with naming(path):
            for found, added in tables:
                schema = widening.add(found)
                if writer is None:
                    writer = _GroupWriter(form, path, schema, added.schema, about)
                if schema == writer.schema:
                    writer.add(found, added)
            if writer is None:
                return True
            whole = bool(widening.schema == writer.schema)
            if whole:
                writer.flush()
            writer.close()
            return whole
    except BaseException:
        if writer is not None:
            with suppress(Exception):  # as before
                writer.close()
        path.unlink(missing_ok=True)  # where the disk is full, its room is needed
        raise


class _GroupWriter:
    """A file of one schema, to which rows are added and whose groups have about `GROUP_BYTES`."""

    def __init__(self, form: Format, path: Path, schema: pa.Schema, added: pa.Schema, about: Mapping[Any, Any]) -> None:
        import pyarrow as pa

        self.schema = schema
        self._full = pa.schema([*schema, *added], {**(schema.metadata or {}), **about})
        self._writer: Any = form.writer(path, self._full)
        self._held: list[pa.Table] = []
        self._size = 0

    def add(self, found: pa.Table, added: pa.Table) -> None:
        import pyarrow as pa

        columns = [*fitted(found, self.schema).columns, *added.columns]
        self._held.append(pa.table(columns, schema=self._full))
        self._size += self._held[-1].nbytes
        if self._size >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self._held:
            group = pa.concat_tables(self._held)
            self._held, self._size = [], 0
            self._writer.write_table(group, max(1, len(group)))

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


def spooled(form: Format, path: Path, spool: Spool, like: NDArray[Any]) -> None:
    """Put the rows of a finished file into a spool, as they were before it was written."""
    for batch in form.batches(path, CHUNK):
        records, vectors, failures = without_vectors(batch, like)
        spool.append([records], vectors, failures)
