"""The nouns: frozen values that cross from layer to layer. No behavior beyond reading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from ._hints import NDArray
from ._peers import look_up
from ._values import is_whole, shown
from .errors import ConfigError, EmbedkitError

if TYPE_CHECKING:
    import numpy as np

    from ._calltime import CallTime
    from ._progress import Progress


InputType = Literal["query", "document", "classification", "clustering", "similarity"]
DType = Literal["float32", "int8", "uint8", "binary", "ubinary"]
Truncate = Literal["end", "error"]
OnError = Literal["raise", "skip"]
CAP = 120.0  # seconds; a longer wait that a provider asks for is refused (openai-python, _base_client.py, 2026-11)
QUANTIZED: tuple[DType, ...] = get_args(DType)[1:]
PACKED: tuple[DType, ...] = ("binary", "ubinary")  # eight components share a byte


class Request(msgspec.Struct, frozen=True):
    """A request as an exchange gets it. Its headers and its query may hold a key, so they are not in its repr.

    Attributes:
        url: the whole URL.
        body: as it is sent; empty where there is none.
        headers: by their lower-case names, those of the credentials included.
        method: of HTTP, "POST" or "GET" for example.
    """

    url: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    method: str = "POST"

    def __repr__(self) -> str:
        return f"Request({self.method} {safe_url(self.url)}, {len(self.body)} bytes)"


class Response(msgspec.Struct, frozen=True):
    """A response as an exchange gives it.

    Attributes:
        status: of HTTP.
        headers: by their lower-case names.
        body: decompressed, in any buffer of bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray | memoryview

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 (success, by RFC 9110)

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one request may hold. None: no limit known.

    Attributes:
        max_texts: texts per request.
        max_tokens: tokens per request, over all its texts.
        max_bytes: UTF-8 bytes of text per request.
        max_text_tokens: tokens per text.
    """

    max_texts: int | None = None
    max_tokens: int | None = None
    max_bytes: int | None = None
    max_text_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not is_whole(value):
                msg = f"Limits({name}={shown(value)}): a limit is a whole number of at least 1, or None for no limit"
                raise ConfigError(msg)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to embed. None: say nothing, and let the provider's own default stand.

    Attributes:
        input_type: what the text is for; mapped by each provider to its own field or task, else put before the text as
            the prefix of the model's family (`embedkit/catalog.py`).
        dimensions: components per vector.
        dtype: type of the components; "binary" and "ubinary" pack eight of them into a byte.
        truncate: "end" cuts an over-long text, "error" insists on refusing it.
        normalize: True makes every vector unit length.
        extra: merged into the request body verbatim.

    What a provider does not make itself is made here, in this order, of the float32 vector x that it answers:

    - `dimensions=d`, for models known to be trained for it (Matryoshka representation learning, arXiv:2205.13147) only:
      the first d components, divided by their Euclidean length (OpenAI, embeddings guide, "Reducing embedding
      dimensions") unless normalize=False.
    - `normalize=True`: x / |x|, where |x| is summed in float64; a zero vector stays zero.
    - `dtype`, with u = x / |x|: "int8" is 127 u rounded to the nearest integer, half to even; "uint8" is that plus 128.
      These scales are fixed, so vectors of different calls compare, and every component of a unit vector fits; no
      provider publishes its own. "ubinary" is one bit per component, 1 where x > 0, the first in the highest bit of its
      byte (`numpy.packbits`); "binary" is that byte minus 128, as Cohere and Voyage pack it
      (docs.cohere.com/reference/embed; docs.voyageai.com, flexible dimensions).
    """

    input_type: InputType | None = None
    dimensions: int | None = None
    dtype: DType = "float32"
    truncate: Truncate | None = None
    normalize: bool | None = None
    extra: Mapping[str, Any] = {}


class Usage(msgspec.Struct, frozen=True):
    """What it took: `tokens` and `cost` (US dollars) are None when the provider reports none.

    `requests` counts every attempt that was sent, failed ones too. `cached` counts the rows that came from a cache:
    they are in none of the others.
    """

    tokens: int | None = None
    requests: int = 0
    cost: float | None = None
    cached: int = 0


class Embeddings(msgspec.Struct, frozen=True, eq=False):
    """The result: row i of `vectors` belongs to texts[i].

    Attributes:
        vectors: numpy array, C-contiguous, shape (n, d); float32 unless another dtype was asked for.
        model: the model as the provider names it, else as asked.
        usage: tokens, requests, cost.
        failures: row → error, for rows that could not be embedded (`on_error="skip"`); such rows are NaN
            (zeros in integer dtypes).
        start: index of the first row within a stream; 0 elsewhere.
        dtype: the dtype asked for; it tells packed bits from plain integers.
        texts: of a part of a stream, its texts as the stream was given them; None elsewhere, so that no result keeps
            texts that its caller has.
    """

    vectors: NDArray[Any]
    model: str = ""
    usage: Usage = Usage(None, 1)
    failures: Mapping[int, EmbedkitError] = {}
    start: int = 0
    dtype: DType = "float32"
    texts: Sequence[Any] | None = None

    if not TYPE_CHECKING:  # for which a misspelled name is a mistake
        __getattr__ = look_up

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and values per row: (n, d), or (n, d / 8) where bits are packed."""
        rows, width = self.vectors.shape
        return int(rows), int(width)

    @property
    def dimensions(self) -> int:
        """Components per vector, d; eight times the row's bytes where bits are packed."""
        width = int(self.vectors.shape[1])
        return width * 8 if self.dtype in PACKED else width

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def __getitem__(self, row: int | slice) -> NDArray[Any]:
        if isinstance(row, str):
            msg = f"{type(self).__name__}[{row!r}]: a row is a number; the vectors are .vectors, the rest attributes"
            raise TypeError(msg)
        return self.vectors[row]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.vectors)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        return np.array(self.vectors, dtype=dtype, copy=copy)

    def to_list(self) -> list[list[float] | None]:
        """Each vector as a list of numbers; None in a row that failed."""
        from ._tables import to_list

        return to_list(self._rows())

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` with the column `embedding`, lists of fixed size, null in a row that failed; before it
        `text` where `texts` are known, after it `embedding_error` where rows have failed.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        from ._tables import to_arrow

        return to_arrow(self._rows())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with the columns of `to_arrow`; vectors are numpy arrays of shape (d,), and the index
        begins with `start`.

        Raises:
            ConfigError: pandas is not installed.
        """
        from ._tables import to_pandas

        return to_pandas(self._rows(), self.start)

    def to_polars(self) -> Any:
        """A `polars.DataFrame` with the columns of `to_arrow`; vectors are of type Array.

        Raises:
            ConfigError: polars is not installed.
        """
        from ._tables import to_polars

        return to_polars(self._rows())

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        from ._html import table

        usage = self.usage
        facts = {
            "texts": f"{len(self):,}",
            "dimensions": f"{self.dimensions:,}",
            "dtype": self.dtype,
            "model": self.model or "not named",
            "tokens": "not reported" if usage.tokens is None else f"{usage.tokens:,}",
            "requests": f"{usage.requests:,}",
            "cost": "not known" if usage.cost is None else f"${usage.cost:,.6f}",
            "failed": f"{len(self.failures):,}",
        }
        return table("embedkit.Embeddings", facts, self.failures)

    def _rows(self) -> Any:
        from ._tables import Rows

        return Rows(self.vectors, self.failures, self.texts)

    def __repr__(self) -> str:
        failed = f", failures={len(self.failures)}" if self.failures else ""
        shape = "x".join(map(str, self.vectors.shape))
        return f"Embeddings({shape} {self.vectors.dtype}, model={self.model!r}, tokens={self.usage.tokens}{failed})"


class Reply(msgspec.Struct, frozen=True, eq=False):
    """One decoded reply: the rows it filled, and what it said of itself.

    Attributes:
        vectors: of its texts, in their order, shape (n, d).
        model: as the provider names it; empty where it does not.
        tokens: as the provider counts them; None where it does not.
    """

    vectors: NDArray[Any]
    model: str = ""
    tokens: int | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog knows of one model.

    Attributes:
        name: the model's name at the provider.
        dimensions: components of its vectors when nothing else is asked.
        widths: the other widths it was trained to be cut to (Matryoshka); empty: none. A `range` means any in it.
        tokens: the most tokens one text may have.
        price: US dollars per million tokens.
        batch_price: the same in a batch job; None: not published, or it has none.
        dtypes: the dtypes besides float32 that its provider makes itself.
        prefixes: input type → text to put before every text, for families that want it in the text itself.
        prefix_field: the request field that takes the prefix at this provider; empty: it goes before every text here.
        source: where this is written, and when it was read.
    """

    name: str
    dimensions: int | None = None
    widths: Sequence[int] = ()
    tokens: int | None = None
    price: float | None = None
    batch_price: float | None = None
    dtypes: Sequence[DType] = ()
    prefixes: Mapping[str, str] = {}
    prefix_field: str = ""
    source: str = ""


def safe_url(url: str) -> str:
    """A URL as it may be shown: without a user, and without its query, either of which may hold a key."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("?")[0].partition("/")
    return scheme + mark + place.rpartition("@")[2] + slash + path


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    scheme, mark, rest = safe_url(url).partition("://")
    return scheme + mark + rest.partition("/")[0]


@cache
def array_of(dtype: DType) -> type[np.generic]:
    """The numpy type that holds one component (or one packed byte) of this dtype."""
    import numpy as np

    kinds: dict[str, type[np.generic]] = {
        "float32": np.float32, "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8,
    }  # fmt: skip
    return kinds[dtype]


class RequestCount:
    """What one call to the embedder has sent so far, and how many of its requests are under way.

    `patient`: it belongs to a bulk job. `time`: its limits, where it has any. `call`: its number; older calls have
    smaller ones. `progress`: is told of texts that are done. `cost`: US dollars so far, in a pool whose members differ
    in price; None: a price is not known. `elapsed`: seconds that a request of it was under way when it was cancelled,
    the longest; unset before that.
    """

    __slots__ = ("call", "cost", "elapsed", "patient", "progress", "requests", "time", "under_way")
    elapsed: float

    def __init__(
        self,
        patient: bool = False,
        time: CallTime | None = None,
        call: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.requests: int = 0
        self.under_way: int = 0
        self.patient: bool = patient
        self.time: CallTime | None = time
        self.call: int = call
        self.progress: Progress | None = progress
        self.cost: float | None = 0.0

    def cancelled(self, seconds: float) -> None:
        """One of its requests is, so long after it first asked for its turn."""
        self.elapsed = max(seconds, getattr(self, "elapsed", 0.0))

    def spent(self) -> tuple[int, float]:
        """Of a call that was cancelled: the requests sent, and the seconds since it first asked for a turn (of a call
        with a limit of time: since it began).
        """
        if self.time is not None:
            return self.time.so_far()
        return self.requests, getattr(self, "elapsed", 0.0)
