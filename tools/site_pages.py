"""Hook of mkdocs: adds the pages that are made while the site is built, so that none can be out of date.

These are a page for every provider (`tools/provider_pages.py`), CONTRIBUTING.md and CHANGELOG.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs loads a hook by its path

from embedkit.providers import hosts  # noqa: E402
from tools.provider_pages import pages  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_OPTION = re.compile(r"<code>(--?[\w-]{1,25})</code>")
MOVED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every provider into the navigation: those that a host sells, and those that run where you say."""
    yours = {"local"} | {host.name for host in hosts() if not host.key_required}
    names = [name.removesuffix(".md") for name in pages() if name != "index.md"]
    entries: list[Any] = [
        {"All providers": "providers/index.md"},
        {"Hosted APIs": [{name: f"providers/{name}.md"} for name in names if name not in yours]},
        {"Your own servers": [{name: f"providers/{name}.md"} for name in names if name in yours]},
    ]
    config.nav = [{"Providers": entries} if "Providers" in each else each for each in config.nav or ()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    made = {f"providers/{name}": text for name, text in pages().items()}
    made |= {name: _at_root((ROOT / path).read_text("utf-8")) for name, path in MOVED.items()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links that lead out of docs/, so that they work in the repository, as they are in the site."""
    up = "../" * page.file.src_uri.count("/")
    for name, path in {**MOVED, "providers/index.md": "README.md#providers"}.items():
        markdown = markdown.replace(f"]({up}../{path}", f"]({up}{name}")
    return markdown


def on_page_content(html: str, **_: object) -> str:
    """Keep an option in one piece: a browser breaks `--json` after its dashes."""
    return _OPTION.sub(r"<code class=option>\1</code>", html)


def _at_root(text: str) -> str:
    """Links of a file beside README.md, as they are from within docs/."""
    return text.replace("](docs/", "](")


__all__ = ["on_config", "on_files", "on_page_content", "on_page_markdown"]
