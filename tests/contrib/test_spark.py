"""Spark, the real one: every row once, though a Python worker is killed half-way; `array<float>` of a column."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from embedkit import ConfigError
from embedkit._hints import Later
from tests.contrib.engines import COUNT, TEXTS, DieOnce, answered, check, model, server, told_time

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]  # Spark's own
adapter = Later("embedkit.contrib.spark")
HERE = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def spark():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        # Spark's workers start without the site packages that a .pth file adds
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, sys.path)]))
        sql = pytest.importorskip("pyspark.sql")
        session = (
            sql.SparkSession.builder.master("local[2,4]")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "128")
            .getOrCreate()
        )
        yield session
        session.stop()


def frame_of(spark):
    return spark.createDataFrame(list(enumerate(TEXTS)), "number int, text string").repartition(4)


@pytest.mark.timeout(900)
def test_every_row_is_there_once_though_a_worker_dies(spark, tmp_path, tell):
    """Spark runs the task of a killed worker again, and only that."""
    mark = tmp_path / "died"
    with server() as running:
        with told_time(tell, "Spark"):
            rows = adapter.embed(frame_of(spark), usage=True, **model(running.url, observe=DieOnce(mark))).collect()
        assert mark.exists()
        tell(f"Spark: {answered(mark):,} texts were answered")
        assert COUNT < answered(mark) < COUNT * 1.5
        check([row.number for row in rows], [row.embedding for row in rows], running.url)
        assert sum(row.embedding_tokens or 0 for row in rows) > 0


def test_a_column_of_vectors(spark):
    """`embed_column` gives `array<float>`, null for a null."""
    frame = spark.createDataFrame([("a cat",), (None,)], "text string")
    made = frame.select(adapter.embed_column(frame.text, "local:all-minilm-l6-v2").alias("vector"))

    assert made.schema["vector"].dataType.simpleString() == "array<float>"
    assert sorted(len(row.vector or []) for row in made.collect()) == [0, 384]


def test_what_spark_cannot_hold_is_refused():
    """Spark has no unsigned bytes."""
    with pytest.raises(ConfigError, match="uint8"):
        adapter.EmbedkitBatches("local:all-minilm-l6-v2", dtype="uint8")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("text string, Embedding int", "'Embedding' is there"),
        ("text string, text string", "2 columns 'text'"),
        ("text int", "int, not texts"),
        ("body string", "no column 'text'"),
    ],
)
def test_a_frame_that_cannot_be_embedded_is_refused_before_a_task(spark, schema, words):
    """Columns are compared as Spark does, without case, and their types are known beforehand."""
    with pytest.raises(ConfigError, match=words):
        adapter.embed(spark.createDataFrame([], schema), "local:all-minilm-l6-v2")
