"""`.npy`: byte by byte what numpy writes, and readable at any time."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit import ConfigError
from embedkit._bulk.sinks.npy_sink import NpySink
from tests.support.sinks import expected_vectors, like, opened, whole, write


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "float16"])
def test_npy_is_what_numpy_writes(tmp_path, dtype):
    """Byte for byte the file of `np.save`, so that anything that reads one reads ours."""
    rows = np.arange(12).reshape(4, 3).astype(dtype)
    sink = NpySink(str(tmp_path / "out.npy"))
    sink.begin(tmp_path, rows[:0], None)
    sink.write([], rows[:3], {}, None)
    sink.write([], rows[3:], {}, None)
    sink.sync()
    sink.finish({})
    np.save(tmp_path / "theirs.npy", rows)

    assert sink.place.read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_npy_maps_into_memory(tmp_path):
    """The header is 128 bytes, so rows are aligned and the file can be mapped."""
    mapped = np.load(whole(tmp_path, "npy", 3), mmap_mode="r")

    assert mapped.offset == 128
    assert mapped.tolist() == expected_vectors(3)


def test_an_unfinished_matrix_can_be_read_too(tmp_path):
    """It has the rows of the last checkpoint, whatever was written since."""
    sink = opened(tmp_path, "npy")
    (path,) = (tmp_path / "job").iterdir()
    for rows in (0, 3):
        write(sink, 0, rows)
        sink.sync()
        write(sink, rows, 5)
        for mode in (None, "r"):
            assert len(np.load(path, mmap_mode=mode)) == rows
        sink.close()
        sink = opened(tmp_path, "npy", {"rows": 0, "width": 3, "dtype": "<f4"})
    sink.close()


def test_npy_header_has_room_for_any_shape(tmp_path):
    """However many rows, the header stays 128 bytes long."""
    sink = NpySink(str(tmp_path / "out.npy"))
    sink.begin(tmp_path, like(width=4096), None)
    sink._rows = 10**15

    assert len(sink._header()) == 128
    sink.close()


def test_a_matrix_of_somebody_else_gets_no_rows(tmp_path):
    """By columns, or of another version: read by numpy, and not ours."""
    path, rows = tmp_path / "out.npy", np.ones((2, 3), np.float32)
    for array, version in ((np.asfortranarray(rows), (1, 0)), (rows, (2, 0))):
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version)
        with pytest.raises(ConfigError, match=r"out\.npy is no output that rows can be added to"):
            NpySink(str(path)).reopen(tmp_path, {"rows": 2})
