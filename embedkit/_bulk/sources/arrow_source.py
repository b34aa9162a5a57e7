"""Parquet and Arrow, a part at a time: row groups by their pages, files of Arrow through a memory map."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import ConfigError
from ..contract import Block
from .arrow_fields import check_schema, check_strings, texts_of
from .rows import BLOCK, Builder
from .streams import PIECE, Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from .rows import At, How

MAGIC = b"ARROW1\x00\x00"  # at the beginning of a file; without the zeros at its end, too
PAGES = 1 << 20  # bytes of a column in memory at once, at least
SOME = 4096  # rows


def blocks(batches: Iterator[Any], schema: pa.Schema, how: How, at: At, into: pa.Schema | None) -> Iterator[Block]:
    """Blocks of record batches, which may be of any size. `into`: the schema that several files have in common.

    Raises:
        ConfigError: a column cannot be cast to its common type without loss.
    """
    import pyarrow as pa

    fields = how.fields
    column = None if fields.template or "." in fields.column else fields.column
    rows = Builder(how, at, lean=False)
    if how.carried:
        kept = into or schema
        none = pa.RecordBatch.from_arrays([pa.nulls(0, kind) for kind in kept.types], schema=kept)
        yield Block([], none, {}, None if fields.key is None else [])  # no rows, but columns for the output
    for whole in batches:
        for start in range(0, len(whole), BLOCK):
            batch = whole.slice(start, BLOCK)
            if how.carried == "jsonl":
                check_strings(batch, at.name, at.first + rows.row, column)
            texts, keys, wrong = texts_of(batch, fields, empty=how.empty)
            if into is not None:
                batch = _fitted(batch, into, at.where(rows.row))
            if wrong and how.carried == "jsonl" and column in batch.schema.names:
                # A text that is not UTF-8 is null in the record too.
                place = batch.schema.get_field_index(column)
                batch = batch.set_column(place, column, pa.array(texts, pa.large_string()))
            yield rows.judged(texts, batch if how.carried else [{}] * len(batch), keys, wrong, _no_line)


def _no_line(_: int) -> None:
    return None


def _fitted(batch: Any, schema: pa.Schema, where: str) -> Any:
    import pyarrow as pa

    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        try:
            columns.append(
                pa.nulls(len(batch), field.type) if place < 0 else batch.column(place).cast(field.type, safe=True)
            )
        except pa.ArrowException as error:
            msg = f"{where}: column {field.name!r} does not fit the type of the other files, {field.type}: {error}"
            raise ConfigError(msg) from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def common_schema(schemas: list[tuple[str, pa.Schema]]) -> pa.Schema | None:
    """The schema of several files: every column of any, in a type that holds all values. None: all are alike.

    Raises:
        ConfigError: two types have nothing in common, as text and numbers.
    """
    import pyarrow as pa

    common = schemas[0][1]
    if all(schema.equals(common) for _, schema in schemas):
        return None
    for name, schema in schemas[1:]:
        for field in schema:
            place = common.get_field_index(field.name)
            if place < 0:
                common = common.append(field.with_nullable(True))
                continue
            both = [pa.schema([each.remove_metadata().with_nullable(True)]) for each in (common.field(place), field)]
            try:
                wide = pa.unify_schemas(both, promote_options="permissive").field(0)
            except pa.ArrowException:
                msg = (
                    f"{name}: column {field.name!r} is {field.type}, and {common.field(place).type} in "
                    f"{schemas[0][0]}: one Parquet file cannot hold both; write .jsonl or .npy, or a job for each"
                )
                raise ConfigError(msg) from None
            common = common.set(place, wide)
    return common


# --- Parquet ---------------------------------------------------------------------------------------------------------


def read_parquet(file: BinaryIO, how: How, at: At, into: pa.Schema | None) -> Iterator[Block]:
    """Every row of a file that can be read from any place."""
    with reported(at.name, "Parquet"), _parquet(file) as table:
        schema = table.schema_arrow
        check_schema(schema, at.name, how)
        wanted = None if how.carried else list(how.fields.needed)
        yield from blocks(table.iter_batches(BLOCK, columns=wanted), schema, how, at, into)


def parquet_schema(file: BinaryIO, how: How, at: At) -> pa.Schema:
    """Its columns, if the texts can be read from them."""
    with reported(at.name, "Parquet"), _parquet(file) as table:
        check_schema(table.schema_arrow, at.name, how)
        return table.schema_arrow


def _parquet(file: BinaryIO) -> Any:
    import pyarrow.parquet as pq

    # Spark's old timestamps hold any year, of which nanoseconds
    # in 64 bits have 584, and pyarrow would wrap the rest. Without a buffer size a whole column chunk is read at once.
    return pq.ParquetFile(file, coerce_int96_timestamp_unit="us", buffer_size=PAGES, pre_buffer=False)


def on_disk(file: Pieces) -> BinaryIO:
    """What comes from a packed file, in a temporary one without a name: Parquet's index stands at the end."""
    kept = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
    shutil.copyfileobj(io.BufferedReader(file, PIECE), kept, PIECE)
    kept.seek(0)
    return kept


# --- Arrow -----------------------------------------------------------------------------------------------------------


def read_mapped(path: str, how: How, at: At, into: pa.Schema | None) -> Iterator[Block]:
    """Every row of a file, through a memory map: even of a single batch only the pages in use are in memory."""
    import pyarrow as pa

    with reported(at.name, "Arrow"), pa.memory_map(os.fsencode(path)) as file:
        start = file.read(len(MAGIC))
        file.seek(0)
        if start == MAGIC:
            table = pa.ipc.open_file(file)
            batches = (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            table = batches = pa.ipc.open_stream(file)
        check_schema(table.schema, at.name, how)
        yield from blocks(_sound(batches), table.schema, how, at, into)


def read_stream(file: Pieces, how: How, at: At, into: pa.Schema | None) -> Iterator[Block]:
    """Every row of a stream, or of a file that comes as one, a batch at a time."""
    with reported(at.name, "Arrow"):
        reader, rest, is_file = _stream(file)
        check_schema(reader.schema, at.name, how)
        yield from blocks(_sound(reader), reader.schema, how, at, into)
        end = b""
        while is_file and (piece := rest.read(PIECE)):
            end = (end + piece)[-len(MAGIC) :]
        if is_file and not end.endswith(MAGIC[:6]):
            msg = f"{at.name}: cannot be read as Arrow: its end is missing"
            raise ConfigError(msg)


def arrow_schema(file: Pieces, how: How, at: At) -> pa.Schema:
    """Its columns, if the texts can be read from them."""
    with reported(at.name, "Arrow"):
        schema = _stream(file)[0].schema
        check_schema(schema, at.name, how)
        return schema


def _stream(file: Pieces) -> tuple[Any, Any, bool]:
    """(its batches, what is read from, whether it is a file): a file of Arrow is a stream between two marks."""
    import pyarrow as pa

    start = b""
    while len(start) < len(MAGIC) and (piece := file.some()):
        start += piece
    is_file = start.startswith(MAGIC)
    whole = Pieces(file.some, start[len(MAGIC) :] if is_file else start)
    rest = pa.PythonFile(io.BufferedReader(whole, PIECE), mode="r")
    return pa.ipc.open_stream(rest), rest, is_file


def _sound(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, in small pieces that have been looked at: pyarrow believes a file's offsets, wherever they point."""
    import pyarrow as pa

    for whole in batches:
        for start in range(0, len(whole), SOME):
            batch = whole.slice(start, SOME)
            for column in batch.columns:
                try:
                    column.validate(full=True)
                except pa.ArrowException as error:
                    if "UTF8" not in str(error):  # that is told by its row
                        raise
            yield batch


@contextmanager
def reported(name: str, form: str) -> Iterator[None]:
    """What pyarrow says of a file becomes a ConfigError that names it; what the system says stays."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a column's name
        if getattr(error, "errno", None) is not None:
            raise
        msg = f"{name}: cannot be read as {form}: {error}"
        raise ConfigError(msg) from None
