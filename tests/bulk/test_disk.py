"""Files that outlast a crash: what was said to be there is there, and errors have a name."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from embedkit import ConfigError
from embedkit._bulk import disk
from embedkit._bulk.disk import AppendedFile, check_folder, copy, move, naming, sync_file, sync_folder


def test_a_file_grows_and_is_cut_back(tmp_path):
    """To the size that it is opened with; what comes then follows it."""
    file = AppendedFile(tmp_path / "a")
    file.append(b"one")
    file.append(np.arange(2, dtype=np.uint8))
    file.append(np.empty((0, 3), np.float32))
    file.put(b"O", 0)
    file.append(b"two")
    file.sync()
    file.close()
    (tmp_path / "gone").mkdir()
    AppendedFile(tmp_path / "gone" / "b", 0).close()  # nothing was there, and nothing is missing
    again = AppendedFile(tmp_path / "a", 5)
    again.append(b"three")
    again.close()
    again.close()

    assert (tmp_path / "a").read_bytes() == b"One\x00\x01three"
    assert again.size == 10


def test_a_write_in_pieces_is_whole(tmp_path, monkeypatch):
    """The system may take less than it is given."""
    file = AppendedFile(tmp_path / "a")
    real = file._file

    class Narrow:
        def write(self, data):
            return real.write(data[:3])

    file._file = Narrow()
    file.append(b"0123456789")
    real.close()

    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_names_are_on_disk_before_the_first_state(tmp_path, monkeypatch):
    """A new file's folder is brought to disk with it, once."""
    synced = []
    monkeypatch.setattr(disk, "sync_folder", synced.append)
    file = AppendedFile(tmp_path / "a")
    file.sync()
    file.sync()
    file.close()
    AppendedFile(tmp_path / "a", 0).close()

    assert synced == [tmp_path]


def test_nothing_is_well_after_an_error(tmp_path, monkeypatch):
    """A disk that failed once may say later that all is there: it is not asked again."""
    file = AppendedFile(tmp_path / "a")
    file.append(b"x")

    def fails(number):
        raise OSError(errno.EIO, "disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="a'") as caught:
            file.sync()
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "a"))
    for call in (file.sync, lambda: file.append(b"y"), lambda: file.put(b"y", 0)):
        with pytest.raises(OSError, match="a'"):
            call()
    file.close()

    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_file_that_is_too_short_is_refused(tmp_path):
    """And not filled up with zeros."""
    (tmp_path / "a").write_bytes(b"12")
    with pytest.raises(ConfigError, match="a holds 2 bytes, and held 3"):
        AppendedFile(tmp_path / "a", 3)
    with pytest.raises(ConfigError, match="b is gone"):
        AppendedFile(tmp_path / "b", 3)

    assert (tmp_path / "a").read_bytes() == b"12"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, None])
def test_an_error_without_a_name_gets_one(tmp_path, number):
    """One that has a name keeps it."""
    with pytest.raises(OSError, match="x") as caught, naming(tmp_path / "x"):
        raise OSError(number, "words of a library") if number else OSError("words of a library")
    assert (caught.value.errno, caught.value.filename) == (number or errno.EIO, str(tmp_path / "x"))
    with pytest.raises(FileNotFoundError) as other, naming(tmp_path / "x"):
        (tmp_path / "y").open()
    assert other.value.filename == str(tmp_path / "y")


@pytest.mark.parametrize("number", [None, errno.EXDEV, errno.ENOSYS])
def test_a_copy_is_made_with_the_system_or_without(tmp_path, monkeypatch, number):
    """Where the system cannot, byte by byte; longer content that stood there is gone."""
    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    (tmp_path / "b").write_bytes(b"x" * 4_000_000)
    if number:

        def fails(*arguments):
            raise OSError(number, "cannot")

        monkeypatch.setattr(os, "copy_file_range", fails)
    copy(tmp_path / "a", tmp_path / "b")

    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_other_errors_of_a_copy_are_told(tmp_path, monkeypatch):
    """A full disk is not tried again in another way."""

    def fails(*arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", fails)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="b'") as caught:
        copy(tmp_path / "a", tmp_path / "b")
    assert caught.value.errno == errno.ENOSPC


def test_a_move_that_fails_leaves_both(tmp_path, monkeypatch):
    """Errors other than another file system are the caller's, with both names."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b'"):
        move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_move_that_fails_names_what_is_in_its_way(tmp_path):
    """Not the file that is well and waits to be moved; a file that is not there is named itself."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("rows")
    target.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        move(source, target)
    assert caught.value.filename == str(target)
    source.unlink()
    with pytest.raises(FileNotFoundError) as missing:
        move(source, tmp_path / "other")
    assert str(missing.value.filename) == str(source)


def test_folders_are_checked_before_anything_is_written(tmp_path):
    """One that is missing, and one that is a file."""
    check_folder(tmp_path)
    (tmp_path / "file").touch()
    for name in ("no", "file"):
        with pytest.raises(FileNotFoundError, match=name):
            check_folder(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "no")
    with pytest.raises(FileNotFoundError):
        sync_file(tmp_path / "no")
