"""Amazon Bedrock's InvokeModel. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html

One route, three families of bodies: Titan and Nova take one text per request, Cohere up to 96. The model's name tells
the family, be it a bare id, an inference profile or an ARN. A bearer key goes out as it is; AWS keys sign.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..._types import Request
from ...codec import Host, Parameter, Target, bearer, fill_url, with_headers
from ...errors import ConfigError
from .dialects import Cohere, Nova, Titan
from .sigv4 import sign

_FAMILIES: dict[str, tuple[str, type[Titan | Cohere | Nova]]] = {
    "titan": ("titan-embed-text", Titan),
    "cohere": ("cohere.embed", Cohere),
    "nova": ("multimodal-embeddings", Nova),
}


def _family(target: Target) -> Titan | Cohere | Nova:
    said = target.parameters.get("family")
    for name, (part, dialect) in _FAMILIES.items():
        if name == said or (said is None and part in target.model):
            return dialect(target)
    msg = f"model {target.model!r} does not tell its family: pass family={' or '.join(map(repr, _FAMILIES))}"
    raise ConfigError(msg)


def _bare(model: str) -> str:
    """The model's own id, without what an ARN or an inference profile (us., global.) puts before it."""
    found = re.search(r"(?:amazon|cohere)\.[\w.:-]+$", model)
    return found[0] if found else model


def _authorized(request: Request, credentials: Mapping[str, str], now: float) -> Request:
    """The bearer key if there is one, as AWS's own clients prefer it; else a signature."""
    keys = {name: credentials.get(name) for name in _KEYS}
    if credentials.get("api_key") or not any(keys.values()):
        return bearer(request, credentials, now)
    access, secret, token = keys.values()
    told = re.search(r"bedrock-runtime[\w-]*\.([\w-]+)\.", urlsplit(request.url).hostname or "")
    region = told[1] if told else credentials.get("region")  # a signature for another region than the host's is refused
    if not access or not secret or not region:
        missing = ", ".join(
            name for name, value in {**keys, "region": region}.items() if not value and name != "aws_session_token"
        )
        msg = f"bedrock signs with aws_access_key_id and aws_secret_access_key for a region; missing: {missing}"
        raise ConfigError(msg)
    headers = sign(
        request, access_key=access, secret_key=secret, token=token or "", region=region, service="bedrock", now=now
    )
    return with_headers(request, headers)


_KEYS = {
    "aws_access_key_id": Parameter(("AWS_ACCESS_KEY_ID",), secret=True, key=True, help="access key of AWS"),
    "aws_secret_access_key": Parameter(("AWS_SECRET_ACCESS_KEY",), secret=True, key=True, help="its secret"),
    "aws_session_token": Parameter(("AWS_SESSION_TOKEN",), secret=True, key=True, help="of a temporary access key"),
}

HOSTS = (
    Host(
        name="bedrock", dialect=_family, base_url="https://bedrock-runtime.{region}.amazonaws.com",
        routes=("/model/{model*}/invoke", "/model/{model*}/converse"),
        key_variables=("AWS_BEARER_TOKEN_BEDROCK",), key_required=True, start=100, ceiling=128, resolve_url=fill_url,
        authorize=_authorized, catalog_name=_bare,
        own_domains=(
            "bedrock-runtime.*.amazonaws.com", "bedrock-runtime-fips.*.amazonaws.com",
            "bedrock-runtime.*.vpce.amazonaws.com",
        ),
        parameters={
            "region": Parameter(("AWS_REGION", "AWS_DEFAULT_REGION"), help="like us-east-1"),
            "family": Parameter(
                choices=tuple(_FAMILIES), help="whose body to send, where the model's name (an ARN) does not tell"
            ),
            **_KEYS,
        },
        batches="its batch jobs read from and write to S3, which embedkit does not speak",
    ),
)  # fmt: skip
