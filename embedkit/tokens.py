"""Ready token counters for `connect(count_tokens=…)`: exact where the estimate from a text's length is not enough.

    from embedkit import tokens

    embedkit.connect("openai:text-embedding-3-small", count_tokens=tokens.tiktoken("text-embedding-3-small"))
    embedkit.connect("tei:BAAI/bge-m3", count_tokens=tokens.tokenizer("bge-m3/tokenizer.json"))

A counter is a callable: text → number of tokens. It pickles, and loads what it needs on first use, once per process.
Needs the extra `tokens`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ._install import install
from ._threads import pools_loaded
from .errors import ConfigError

INSTALL = install("tokens")


class TokenCounter:
    """Counts the tokens of a text."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._loaded: Any = None

    def __call__(self, text: str) -> int:
        """Tokens of `text`, those included that the model adds to every text."""
        if self._loaded is None:
            self._loaded = self._load(self._source)
        return self._count(self._loaded, text)

    @staticmethod
    def _load(source: str) -> Any:
        raise NotImplementedError

    @staticmethod
    def _count(loaded: Any, text: str) -> int:
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source, "_loaded": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__.strip('_').lower()}({self._source!r})"


class _Tiktoken(TokenCounter):
    @staticmethod
    def _load(source: str) -> Any:
        pools_loaded()
        try:
            import tiktoken as library
        except ImportError:
            msg = f"counting tokens with tiktoken needs {INSTALL}"
            raise ConfigError(msg) from None
        try:
            return (
                library.get_encoding(source)
                if source in library.list_encoding_names()
                else library.encoding_for_model(source)
            )
        except KeyError:
            known = ", ".join(library.list_encoding_names())
            msg = f"tiktoken knows neither a model nor an encoding {source!r}; encodings: {known}"
            raise ConfigError(msg) from None
        except Exception as error:
            msg = (
                f"tiktoken could not load {source!r} ({type(error).__name__}); it downloads the vocabulary once: "
                "where there is no network, set TIKTOKEN_CACHE_DIR to a folder that holds it"
            )
            raise ConfigError(msg) from error

    @staticmethod
    def _count(loaded: Any, text: str) -> int:
        return len(loaded.encode_ordinary(text))


class _Tokenizer(TokenCounter):
    @staticmethod
    def _load(source: str) -> Any:
        try:
            import tokenizers as library
        except ImportError:
            msg = f"counting tokens with a tokenizer.json needs {INSTALL}"
            raise ConfigError(msg) from None
        if not Path(source).is_file():
            msg = f"{source}: no such file; it is the tokenizer.json of the model"
            raise ConfigError(msg)
        try:
            loaded = library.Tokenizer.from_file(source)
        except Exception as error:
            msg = f"{source}: not a tokenizer.json ({error})"
            raise ConfigError(msg) from error
        loaded.no_truncation()  # or every long text would count as what the model takes
        loaded.no_padding()
        return loaded

    @staticmethod
    def _count(loaded: Any, text: str) -> int:
        try:
            return len(loaded.encode(text).ids)
        except TypeError:  # a lone surrogate, which is no character: what refuses the text by its row comes later
            return len(loaded.encode(text.encode("utf-8", "replace").decode()).ids)


def tiktoken(name: str = "cl100k_base") -> TokenCounter:
    """Counts as OpenAI does, for a model or an encoding of that name.

    Raises (on first use):
        ConfigError: tiktoken is not installed, knows no such name, or cannot load its vocabulary.
    """
    return _Tiktoken(name)


def tokenizer(path: str | os.PathLike[str]) -> TokenCounter:
    """Counts as the model does whose `tokenizer.json` lies at `path`, its special tokens included, truncation off.

    Raises (on first use):
        ConfigError: the tokenizers package is not installed, or there is no such file, or it is another kind of file.
    """
    return _Tokenizer(os.fspath(path))


__all__ = ["TokenCounter", "tiktoken", "tokenizer"]
