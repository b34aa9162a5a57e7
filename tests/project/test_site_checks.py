"""What `make docs` finds in the site and in the Markdown files beside it: dead links, and misspelled words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_links import dead_links_of_document, dead_links_of_site
from tools.check_spelling import misspelled, prose_of_html, prose_of_markdown

HERE = Path(__file__).parent.parent.parent


@pytest.fixture
def site(tmp_path):
    """A site of two pages with a folder; `write(body)` gives the body of the first."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "one.html").write_text('<h2 id="a-part">A part</h2><a href="../index.html#top">up</a>')
    (tmp_path / "style.css").write_text("")

    def write(body):
        (tmp_path / "index.html").write_text(f'<h1 id="top">Start</h1>{body}')
        return list(dead_links_of_site(tmp_path))

    return write


@pytest.mark.parametrize(
    "link",
    [
        "#top",
        "#",
        "",
        "recipes/one.html",
        "recipes/one.html#a-part",
        "/style.css",
        "https://example.com/x#y",
        "mailto:a@b.example",
    ],
)
def test_a_link_that_leads_somewhere_is_not_named(site, link):
    """Pages, headings, files, the page itself; another site is not asked."""
    assert site(f'<a href="{link}">x</a>') == []


@pytest.mark.parametrize(
    "link",
    ["recipes/two.html", "recipes/one.html#another-part", "#bottom", "/recipes/one.css", "recipes/one.html#A-part"],
)
def test_a_dead_link_is_named_with_its_page(site, link):
    """A page, a heading or a file that is not there."""
    assert site(f'<a href="{link}">x</a>') == [f"index.html: {link}"]
    assert site(f'<img src="{link}">') == [f"index.html: {link}"]


def test_links_of_a_markdown_file_are_checked_as_a_repository_shows_it(tmp_path):
    """Files and headings beside it; what stands in code is no link."""
    (tmp_path / "other.md").write_text("# One Heading, with `code`\n")
    document = tmp_path / "README.md"
    document.write_text(
        "# Top\n[a](other.md) [b](other.md#one-heading-with-code) [c](#top) [d](https://example.com)\n"
        "```\n[e](nowhere.md)\n```\n[f](nowhere.md) [g](other.md#two) [h](#bottom)\n"
    )

    assert [each.rpartition(": ")[2] for each in dead_links_of_document(document)] == [
        "nowhere.md",
        "other.md#two",
        "#bottom",
    ]


def test_a_misspelled_word_is_named():
    """Whatever the mistake is, and British spelling; each word once."""
    prose = "The vectos of an embeding are normalised, and the vectos of others’ aren’t."

    assert list(misspelled(prose, ["embedkit"])) == ["vectos", "embeding", "normalised"]


def test_names_are_no_mistakes():
    """Known words with a capital or an 's, abbreviations, classes, addresses and files."""
    prose = "Embedkit's JSONL and SyncEmbedder, at https://exampel.com/pth, in docs/recpies.md and indx.html"

    assert list(misspelled(prose, ["embedkit"])) == []


def test_code_is_not_read():
    """Neither in HTML nor in Markdown; the words around it are."""
    page = "<head><title>ttl</title></head><p>one<code>tow</code>two</p><pre><span>thre</span></pre><td>four</td><td>five</td>"
    text = "one `tow` [two](thre.md)\n```\nfour\n```\nfive <https://sixx.example>\n"

    assert prose_of_html(page).split() == ["onetwo", "four", "five"]
    assert prose_of_markdown(text).split() == ["one", "[two", "five"]


def test_a_warning_of_mkdocs_fails_the_build():
    """`--strict` counts warnings only where they are logged: with `--quiet` it let every dead link pass."""
    (command,) = [line for line in (HERE / "Makefile").read_text("utf-8").splitlines() if "mkdocs build" in line]

    assert "--strict" in command.split()
    assert not {"--quiet", "-q"} & set(command.split())
