"""The contract a dialect fulfills, and the few helpers it needs.

A *dialect* is the format of an API: pure functions, `encode` (texts → request), `decode` (response → rows) and
`explain` (a refusal → the provider's message). A *host* is a row of data: an address, its credentials and its limits.
Bytes go straight into the rows of the output matrix: no reply is copied twice, and no row is visible before it is
checked.
"""

from .._types import Limits, ModelFacts, Options, Reply, Request, Response
from .byte_types import are_floats, float_type, no_floats
from .contract import JSON, UNREADABLE, Codec, to_json
from .dialect import Dialect, complete
from .error_body import read_error_body
from .error_mapping import error_in_success
from .host import (
    Host,
    Parameter,
    Secrets,
    Target,
    TokenExchange,
    bearer,
    fill_url,
    host_matches,
    is_header_safe,
    with_headers,
)
from .reply import (
    decode_reply,
    header_int,
    in_order,
    in_place,
    listing,
    pool_tokens,
    renormalize_cut,
    text_of,
    tokens_in,
    vector_values,
    whole_number,
    without_vectors,
)
from .request import (
    accepted_input_types,
    compact,
    known_width,
    prefixed,
    prompt_field,
    reject_unsupported,
    single_text,
    split_extra,
    widths,
)
from .vector_math import finite, normalize, quantize
from .vectors import (
    Missing,
    Out,
    OutputRows,
    Vector,
    VectorLike,
    decode_json,
    decoder_of,
    matrix,
    miscounted,
    together,
    unlike_earlier,
)

__all__ = [
    "JSON",
    "UNREADABLE",
    "Codec",
    "Dialect",
    "Host",
    "Limits",
    "Missing",
    "ModelFacts",
    "Options",
    "Out",
    "OutputRows",
    "Parameter",
    "Reply",
    "Request",
    "Response",
    "Secrets",
    "Target",
    "TokenExchange",
    "Vector",
    "VectorLike",
    "accepted_input_types",
    "are_floats",
    "bearer",
    "compact",
    "complete",
    "decode_json",
    "decode_reply",
    "decoder_of",
    "error_in_success",
    "fill_url",
    "finite",
    "float_type",
    "header_int",
    "host_matches",
    "in_order",
    "in_place",
    "is_header_safe",
    "known_width",
    "listing",
    "matrix",
    "miscounted",
    "no_floats",
    "normalize",
    "pool_tokens",
    "prefixed",
    "prompt_field",
    "quantize",
    "read_error_body",
    "reject_unsupported",
    "renormalize_cut",
    "single_text",
    "split_extra",
    "text_of",
    "to_json",
    "together",
    "tokens_in",
    "unlike_earlier",
    "vector_values",
    "whole_number",
    "widths",
    "with_headers",
    "without_vectors",
]
