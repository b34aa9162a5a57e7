"""The contract a dialect fulfils, and the few helpers it needs.

A *dialect* says how to speak: three pure functions, `encode` (texts → request), `decode` (response → rows) and `explain` (a
refusal → the provider's message). A *host* says where and as whom: a row of data. Bytes go straight into the rows of the output
matrix: no reply is ever copied twice, and none is visible before it is checked.
"""

from .._types import Limits, ModelFacts, Options, Reply, Request, Response
from .byte_types import are_floats, float_type, no_floats
from .contract import JSON, UNREADABLE, Codec, to_json
from .error_body import read
from .error_mapping import inside
from .host import Grant, Host, Parameter, Secrets, Target, bearer, belongs, filled, sendable, with_headers
from .reply import counted, in_order, in_place, levelled, listing, parsed, pooled, text_of, tokens_in, unpacked, whole_number
from .request import compact, known_width, lone, meanings, only, parted, prefixed, prompt, widths
from .vector_math import finite, normalise, quantised
from .vectors import Given, Missing, Out, OutputRows, Vector, decoder_of, matrix, miscounted, parse, together, unlike_earlier

__all__ = [
    "JSON",
    "UNREADABLE",
    "Codec",
    "Given",
    "Grant",
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
    "Vector",
    "are_floats",
    "bearer",
    "belongs",
    "compact",
    "counted",
    "decoder_of",
    "filled",
    "finite",
    "float_type",
    "in_order",
    "in_place",
    "inside",
    "known_width",
    "levelled",
    "listing",
    "lone",
    "matrix",
    "meanings",
    "miscounted",
    "no_floats",
    "normalise",
    "only",
    "parse",
    "parsed",
    "parted",
    "pooled",
    "prefixed",
    "prompt",
    "quantised",
    "read",
    "sendable",
    "text_of",
    "to_json",
    "together",
    "tokens_in",
    "unlike_earlier",
    "unpacked",
    "whole_number",
    "widths",
    "with_headers",
]
