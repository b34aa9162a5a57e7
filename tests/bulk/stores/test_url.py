"""Addresses of stores: what they name, what is refused, and what is never shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedkit._bulk.stores import is_store, open_store
from embedkit._bulk.stores.url import StoreUrl, parse_url
from embedkit.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "kind", "place", "table", "slug"),
    [
        ("lancedb:data/x.lance#t", "lancedb", "data/x.lance", "t", "x.lance.t"),
        ("lancedb:s3://bucket/a", "lancedb", "s3://bucket/a", "embeddings", "bucket-a.embeddings"),
        ("qdrant:http://h:6333#c", "qdrant", "http://h:6333", "c", "h-6333.c"),
        ("qdrant:./local", "qdrant", "./local", "embeddings", "local.embeddings"),
        ("sqlite:/a/b#c/d.db#t", "sqlite", "/a/b#c/d.db", "t", "d.db.t"),
        ("sqlite:rows.db#", "sqlite", "rows.db", "embeddings", "rows.db.embeddings"),
        ("DuckDB:x.duckdb#größe 1", "duckdb", "x.duckdb", "größe 1", "x.duckdb.größe-1-7905b929"),
        ("postgres://h/d#s.t", "postgresql", "postgres://h/d", "s.t", "h-d.s.t"),
        ("postgresql://u:p@h/d?sslmode=require#t", "postgresql", "postgresql://u:p@h/d?sslmode=require", "t", "h-d.t"),
    ],
)
def test_an_address_has_three_parts(url, kind, place, table, slug):
    """The store, the place and the table; a table that is not named is `embeddings`."""
    found = parse_url(url)

    assert (found.kind, found.place, found.table, found.slug) == (kind, place, table, slug)
    assert is_store(url)
    assert (open_store(url).form, open_store(url).place.name) == (kind, slug)


@pytest.mark.parametrize("kind", ["lancedb", "qdrant", "sqlite", "duckdb"])
def test_a_job_lies_beside_its_database(kind, tmp_path, monkeypatch):
    """However the database is named, from whichever folder: and never where the job of another database lies."""
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "other")

    spelled = ("../one/x", str(tmp_path / "one" / "x"), "~/one/x", "../link/x", "./../one/x")
    assert {open_store(f"{kind}:{name}#t").place for name in spelled} == {tmp_path.resolve() / "one" / "x.t"}
    assert open_store(f"{kind}:x#t").place == tmp_path.resolve() / "other" / "x.t"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://h1/d#t", "postgresql://h2/d#t"),
        ("qdrant:http://h:1#t", "qdrant:http://h:2#t"),
        ("lancedb:s3://a/x#t", "lancedb:s3://b/x#t"),
        ('sqlite:x.db#a"b', "sqlite:x.db#a b"),
        ("duckdb:x.db#a/b", "duckdb:x.db#a-b"),
        ("sqlite:x y.db#t", "sqlite:x-y.db#t"),
        ("sqlite:x.db#a.b", "sqlite:x.db.a#b"),
        ("postgresql://h/d#a b", "postgresql://h/d#a-b"),
    ],
)
def test_jobs_of_two_outputs_have_two_names(one, other):
    """A database of the same name at another server is another output, and so is a table whose name is spelled alike:
    the report of the one would say that the other is finished.
    """
    assert open_store(one).place != open_store(other).place


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://h/d", "no address of a store"),
        ("sqlite:", "no file or folder"),
        ("sqlite::memory:#t", "no file or folder"),
        ("sqlite:///rows.db", "takes a path"),
        ("duckdb:", "no file or folder"),
        ("lancedb:db://cloud", "LanceDB Cloud is not supported"),
        ("lancedb:x#a b", "no name it takes"),
        ("qdrant:ftp://h#c", "over http or https"),
        ("qdrant:x#c/d", "no name it takes"),
        ("postgresql:h/d", "begins with postgresql://"),
        ("postgresql://h/d#a.b.c", "neither a table nor schema.table"),
        ("postgresql://h/d#.b", "neither a table nor schema.table"),
        ("postgresql://h/d#" + "ä" * 32, "at most 63 bytes"),
        ("sqlite:x#a\0b", "no name of a table"),
    ],
)
def test_what_is_no_address_is_refused(url, said):
    """With the form that is meant."""
    with pytest.raises(ConfigError, match=said):
        open_store(url)


@pytest.mark.parametrize("path", ["out.npy", "folder/", "-", "C:\\x\\out.parquet", "duckdb.parquet", "sqlite", "a:b"])
def test_a_path_is_no_store(path):
    """Only the names of stores before a colon make an address."""
    assert not is_store(path)


@settings(deadline=None)
@given(
    st.text(st.characters(codec="ascii", exclude_characters="#", exclude_categories=["C"]), min_size=3, max_size=9),
    st.sampled_from(["postgresql://user:{}@h:5432/d#t", "postgresql://h/d?password={}#t", "qdrant:http://u:{}@h:1#t"]),
)
@example("[", "postgresql://user:{}@h/d")
def test_a_password_is_not_shown(word, form):
    """Not in the target, the name of the job's files, a repr, nor in what a client says of its address."""
    password = f"Zq{word.replace('&', '')}qZ"
    found = parse_url(form.format(password))
    said = f"connecting to {found.place} with {password}"
    for secret in found.secrets:
        said = said.replace(secret, "***")

    for shown in (found.shown, found.slug, repr(found), open_store(form.format(password)).target, said):
        assert "Zq" not in shown


def test_a_cut_password_is_not_shown():
    """A # within a password would make a table of its rest."""
    with pytest.raises(ConfigError) as caught:
        parse_url("postgresql://user:pass#word@host/db")
    assert "word@" not in str(caught.value)


def test_addresses_are_equal_by_their_parts():
    """They are values."""
    assert parse_url("sqlite:a") == StoreUrl("sqlite", "a", "embeddings")
