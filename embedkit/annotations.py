"""Names for annotations in code of yours: what the functions of embedkit take and give.

    from embedkit.annotations import InputType

    def vectors(texts: list[str], input_type: InputType = "document") -> embedkit.Embeddings: ...

`InputType`, `DType`, `Truncate` and `OnError` are the strings that `embed` takes. `Tell` is a function for `progress=`.
`Credential` is for `api_key=`, `Headers` for `headers=`. An `Exchange` (`exchange=`) sends a `Request` and returns a
`Response`. `Stream` is what `Embedder.stream` returns.
"""

from ._batching.stream import Stream
from ._connect.credentials import Credential
from ._http.exchange import Exchange
from ._http.headers import Headers
from ._progress import Tell
from ._types import DType, InputType, OnError, Request, Response, Truncate

__all__ = [
    "Credential",
    "DType",
    "Exchange",
    "Headers",
    "InputType",
    "OnError",
    "Request",
    "Response",
    "Stream",
    "Tell",
    "Truncate",
]
