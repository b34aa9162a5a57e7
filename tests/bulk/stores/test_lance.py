"""What a job asks of LanceDB so that it takes little memory, without asking it of the program around it."""

from __future__ import annotations

import pyarrow as pa

from embedkit._bulk.stores import lance


def test_lance_reads_little_ahead_unless_somebody_says_otherwise():
    """What the environment says stays; a program that uses LanceDB itself keeps its settings altogether."""
    fresh, said, used = {}, {"LANCE_DEFAULT_BATCH_SIZE": "7"}, {}
    lance._read_little_ahead({}, fresh)
    lance._read_little_ahead({}, said)
    lance._read_little_ahead({"lancedb": 1}, used)

    assert fresh == lance.LEAN
    assert said == {**lance.LEAN, "LANCE_DEFAULT_BATCH_SIZE": "7"}
    assert used == {}


def test_the_pool_of_arrow_is_the_program_s_own_again():
    """While rows are written, Arrow's memory comes from the system; afterwards from where it came before."""
    before = pa.default_memory_pool()
    with lance._given_back():
        assert pa.default_memory_pool().backend_name == "system"

    assert pa.default_memory_pool().backend_name == before.backend_name
