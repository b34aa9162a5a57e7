"""What an unfinished job has on disk, changed in place without a change of size: it never reaches the output."""

from __future__ import annotations

import anyio
import pytest

from embedkit import AuthError, ConfigError
from embedkit._bulk.disk import AppendedFile
from embedkit._bulk.journal import NAME
from embedkit._bulk.sinks.open_sink import FORMS, open_sink
from tests.bulk.test_job_sinks import TEXTS, Server, expected
from tests.support.jobs import job
from tests.support.sinks import target, vectors_of


def run(path, kind, last=10_000):
    return anyio.run(job(TEXTS, Server(last), path, sink=lambda out: open_sink(str(out), kind)).run)


def zeroed(data, at):
    return data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def moved(data, at):
    """Two blocks in each other's place: no byte is missing, and none is new."""
    half = (len(data) - at) // 2
    return data[:at] + data[at + half : at + 2 * half] + data[at : at + half] + data[at + 2 * half :]


@pytest.mark.parametrize("damage", [zeroed, flipped, moved])
@pytest.mark.parametrize("kind", FORMS)
def test_damage_is_refused_with_the_file_and_left_as_it_is(tmp_path, kind, damage):
    """Wherever the rows or the list of failed rows are damaged, the next run names the file, and sends nothing; with
    the bytes as they were it goes on.
    """
    path = target(tmp_path, kind)
    with pytest.raises(AuthError):
        run(path, kind, 60)
    folder = tmp_path / f"{path.name}.job"
    files = [each for each in folder.iterdir() if each.stat().st_size and each.name != NAME]
    assert len(files) == 2  # rows and failures
    for file in files:
        whole = file.read_bytes()
        for place in (0.3, 0.6, 0.95):
            damaged = damage(whole, int(place * len(whole)))
            if damaged == whole:
                continue
            file.write_bytes(damaged)
            with pytest.raises(ConfigError, match=f"{file.name} is damaged.*--force"):
                run(path, kind)
            assert file.read_bytes() == damaged
        file.write_bytes(whole)
    run(path, kind)
    assert vectors_of(path) == expected(100)


def test_what_is_written_over_is_not_in_the_checksum(tmp_path):
    """A header changes with every checkpoint; what comes after it is checked, after any number of runs."""
    file = AppendedFile(tmp_path / "rows")
    file.append(b"head", changes=True)
    file.append(b"one")
    file.put(b"HEAD", 0)
    file.sync()
    first = file.checksum
    file.close()
    file = AppendedFile(file.path, 7, first)
    file.append(b"two")
    file.sync()
    second = file.checksum
    file.close()

    assert first[0] == second[0] == 4
    AppendedFile(file.path, 10, second).close()
    file.path.write_bytes(b"headONEtwo")
    for size, checksum in ((7, first), (10, second)):
        with pytest.raises(ConfigError, match="is damaged"):
            AppendedFile(file.path, size, checksum)


def test_a_state_without_a_checksum_is_gone_on_with(tmp_path):
    """As an earlier embedkit wrote it: its bytes are trusted, and those that come are checked from then on."""
    (tmp_path / "rows").write_bytes(b"old and more")
    file = AppendedFile(tmp_path / "rows", 3)
    file.append(b"new")
    file.sync()
    file.close()
    assert file.checksum[0] == 3
    file.path.write_bytes(b"OLDnew")
    AppendedFile(file.path, 6, file.checksum).close()
    file.path.write_bytes(b"OLDneW")
    with pytest.raises(ConfigError, match="is damaged"):
        AppendedFile(file.path, 6, file.checksum)
