"""Words of other libraries, and what embedkit calls it: for keywords, methods and names that are not there.

A word is taken where a well-known client has it: openai, litellm, LangChain, LlamaIndex, sentence-transformers, cohere,
voyageai, google-genai, fastembed, haystack. Nothing is translated in silence, since some differ in meaning (retries do
not count the first attempt, attempts do).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# The keywords of `connect`, which stands above this file.
CONNECT = (
    "api_key", "base_url", "input_type", "dimensions", "dtype", "normalize", "truncate", "extra", "max_concurrency",
    "limits", "rate", "retry", "timeout", "total_timeout", "connect_timeout", "read_timeout", "max_response_bytes",
    "session", "proxy", "ssl", "headers", "count_tokens", "long_text", "coalesce", "hedge", "observe", "exchange",
    "cache",
)  # fmt: skip
# What a keyword is called here → what others call it.
_RENAMED = {
    "retry=embedkit.RetryPolicy(attempts=1 + retries)": (
        "max_retries num_retries retries n_retries retry_attempts max_attempts max_retry"
    ),
    "retry=embedkit.RetryPolicy(…)": "backoff backoff_factor retry_policy retry_strategy retry_delay retry_min_seconds",
    "limits=embedkit.Limits(max_texts=…)": (
        "batch_size chunk_size embed_batch_size mini_batch_size max_batch_size embedding_batch_size max_texts"
    ),
    "limits=embedkit.Limits(max_tokens=…)": "max_tokens max_tokens_per_batch max_batch_tokens",
    "base_url=": (
        "api_base base api_url baseurl base_uri baseURL endpoint endpoint_url host host_url url uri server_url "
        "azure_endpoint openai_api_base inference_server_url"
    ),
    "base_url=[…], or embedkit.pool([…]) for several providers": "base_urls endpoints hosts model_list fallbacks",
    "api_key=": (
        "key apikey apiKey api_token access_token auth_token token openai_api_key cohere_api_key voyage_api_key "
        "google_api_key mistral_api_key jina_api_key huggingfacehub_api_token hf_token"
    ),
    "dimensions=": (
        "dimension dims dim embed_dim embedding_dim embedding_dimension embedding_dimensions output_dimension "
        "output_dimensions output_dimensionality truncate_dim vector_size"
    ),
    "dtype=": "output_dtype embedding_type embedding_types output_type precision quantization",
    "input_type=": "task task_type prompt_name prompt_type embedding_purpose text_type embed_type",
    'truncate="end"': "truncation truncate_prompt_tokens max_length max_seq_length max_input_length",
    "normalize=": "normalized normalize_embeddings embedding_normalization l2_normalize",
    "timeout=": "request_timeout timeout_seconds timeout_s",
    "headers=": "default_headers extra_headers additional_headers custom_headers http_headers",
    "extra=": "extra_body model_kwargs additional_kwargs provider_options embed_kwargs encode_kwargs query_kwargs",
    'extra={"user": …}': "user",
    'base_url="https://…?name=value"': "default_query extra_query query_params",
    "max_concurrency=": (
        "concurrency max_workers num_workers workers max_concurrent max_parallel parallel n_jobs parallelism "
        "max_concurrent_requests max_parallel_requests concurrency_limit semaphore"
    ),
    "rate=embedkit.Rate(requests_per_minute=…, tokens_per_minute=…)": (
        "rpm tpm requests_per_minute requests_per_min tokens_per_minute rate_limit rate_limiter rpm_limit"
    ),
    "session=, an aiohttp.ClientSession": (
        "client async_client http_client http_async_client async_http_client httpx_client aclient client_session"
    ),
    "ssl=": "verify verify_ssl ssl_verify ssl_context cafile ca_bundle ca_cert cert",
    "proxy=": "proxies http_proxy https_proxy proxy_url openai_proxy",
    "observe=": "callback callbacks callback_manager logger hooks event_hooks on_retry",
    "cache=": "embedding_cache document_embedding_cache redis_url caching",
    "progress=True": "show_progress show_progress_bar progress_bar verbose",
    'on_error="skip"': "skip_errors ignore_errors raise_on_failure raise_on_error",
    "count_tokens=": "tokenizer tokenizer_name tiktoken_enabled tiktoken_model_name encoding_name length_function",
}


def _all(words: str, here: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), here)


_CLAUSES = {
    **{word: f"here it is {here}" for here, words in _RENAMED.items() for word in words.split()},
    **_all(
        "model_name model_id engine provider custom_llm_provider model_provider",
        'here it is part of the model: connect("provider:model")',
    ),
    **_all("deployment deployment_name deployment_id azure_deployment", 'here it is the model: connect("azure:NAME")'),
    **_all(
        "input inputs texts text sentences documents content contents queries passages",
        'texts go to the embedder: embed(["…"]), embed_query("…")',
    ),
    "encoding_format": "leave it out; base64 is asked for where the provider has it, and dtype= sets the vectors' type",
    "convert_to_numpy": "leave it out; vectors are one numpy matrix",
    "convert_to_tensor": "leave it out; vectors are one numpy matrix, which torch.from_numpy takes",
    "trust_env": "leave it out; HTTPS_PROXY, HTTP_PROXY and NO_PROXY are used where proxy= is not given",
    **_all(
        "cache_folder cache_dir",
        "leave it out; no model is downloaded, path= of the bundled model names its folder, and cache= keeps vectors",
    ),
    "device": "leave it out; the bundled model runs on the processor, and threads= sets on how many cores",
}
# What `connect` does not take, but the calls of an embedder do.
_CALLS = ("on_error", "progress")
_MODEL = 'the model is chosen once: connect("provider:model")'
_OF_CALLS = {
    **_all(
        "input inputs sentences documents content contents query queries prompt",
        "the text or texts come first, without a name",
    ),
    **_all("model model_name model_id engine", _MODEL),
}
_OF_JOBS = {
    **_all("input inputs texts file files path", "here it is source, the first argument"),
    **_all("model model_name client", "here it is embedder, the second argument"),
    **_all("out output_path output_file destination", "here it is output, the third argument"),
    **_all("text_column text_field text_key column_name input_column", "here it is column="),
    **_all("id id_column id_field key_column ids", "here it is key="),
    **_all("overwrite replace restart", "here it is force=True"),
    **_all("resume checkpoint checkpoint_path", "leave it out; the same call again resumes the job"),
    **_all("callback callbacks on_progress show_progress", "here it is progress="),
    **_all("budget max_budget", "here it is max_cost="),
    **_all("format file_format", "here it is input_format= or output_format="),
}
_OWN: dict[str, Mapping[str, str]] = {
    **dict.fromkeys(("embed", "embed_query", "stream"), _OF_CALLS),
    **dict.fromkeys(("run", "estimate"), _OF_JOBS),
}

_DOCUMENTS = 'embed(texts, input_type="document")'
# What a method or attribute of an embedder is called here → what others call it.
_METHODS = {
    _DOCUMENTS: "embed_documents aembed_documents encode_document encode_documents passage_embed",
    "embed(texts)": (
        "embed_texts embed_many embed_batch aembed aembedding embedding embeddings encode create acreate invoke "
        "ainvoke get_embedding get_embeddings get_text_embedding get_text_embedding_batch aget_text_embedding "
        "generate_embeddings embed_content vectorize run"
    ),
    "embed_query(text)": (
        "aembed_query encode_query get_query_embedding aget_query_embedding query_embed embed_text embed_one"
    ),
    "stream(texts)": "embed_stream iter_embed embed_iter lazy_embed",
    "provider and model": "model_name model_id model_info",
    "options.dimensions, or the width of a result": "dimension dimensions get_sentence_embedding_dimension dim",
}
_RESULTS = {
    "vectors": "embeddings embedding data values vector array results numpy output",
    "to_list()": "tolist as_list list",
    "usage.tokens": "total_tokens prompt_tokens tokens",
    "usage.cost": "cost",
    "to_pandas()": "to_df df",
}
_MODULE = {
    'embedkit.connect("provider:model")': "AsyncOpenAI AsyncClient Client AsyncEmbedder",
    'embedkit.connect_sync("provider:model")': "OpenAI SentenceTransformer TextEmbedding SyncClient client",
    'embedkit.connect_sync("provider:model").embed(texts)': "embed embedding embed_documents encode",
    'await embedkit.connect("provider:model").embed(texts)': "aembed aembedding",
    "embedkit.bulk.run_sync(source, model, output)": "run run_sync embed_file",
    "embedkit.errors": "exceptions error",
    "embedkit.RetryPolicy": "Retry RetryConfig",
    "embedkit.EmbedkitError": "EmbedkitException APIError OpenAIError EmbedError",
    "embedkit.TransportTimeoutError": "TimeoutError APITimeoutError Timeout",
    "embedkit.TransportError": "APIConnectionError ConnectionError",
    "embedkit.AuthError": "AuthenticationError PermissionDeniedError",
    "embedkit.InvalidInputError": "BadRequestError InvalidRequestError",
}


# A provider as it is called here → as other libraries call it.
_PROVIDERS = {
    "azure": "azure_openai azureopenai",
    "azureaifoundry": "azure_ai",
    "bedrock": "amazon aws aws_bedrock",
    "compatible": "openai_like openai_compatible",
    "dashscope": "alibaba",
    "fireworks": "fireworks_ai",
    "gemini": "google google_ai google_genai",
    "huggingface": "hf huggingface_hub",
    "jina": "jina_ai jinaai",
    "lmstudio": "lm_studio",
    "mistral": "mistralai",
    "mixedbread": "mixedbread_ai mxbai",
    "nvidia": "nvidia_nim",
    "tei": "text_embeddings_inference",
    "together": "together_ai togetherai",
    "vertex": "google google_vertexai vertex_ai vertexai",
    "vllm": "hosted_vllm",
    "voyage": "voyageai",
    "watsonx": "ibm watsonx_ai",
    "zhipu": "zai",
}

# An input type as it is called here → as providers and other libraries call it.
_INPUT_TYPES = {
    "query": "search_query retrieval_query query_text question search q retrieval.query code_retrieval_query",
    "document": "search_document retrieval_document passage doc documents text corpus retrieval.passage",
    "similarity": "semantic_similarity sts text-matching text_matching",
    "clustering": "separation cluster",
    "classification": "classify",
}


def input_type_called(word: object) -> str:
    """What an input type is called here that has another name elsewhere; "" where none has it."""
    name = word.strip().lower() if isinstance(word, str) else ""
    return next((here for here, words in _INPUT_TYPES.items() if name in (here, *words.split())), "")


def providers_called(word: str) -> list[str]:
    """What a provider is called here that has another name elsewhere; nothing where none has it."""
    name = word.strip().lower().replace("-", "_")
    return [here for here, words in _PROVIDERS.items() if name in words.split()]


def clause(word: str, function: str, takes: Iterable[str]) -> str:
    """What to write in place of a keyword of another library; "" where none has it.

    Args:
        word: the keyword.
        function: that does not take it.
        takes: the keywords that it does take.
    """
    if own := _OWN.get(function, {}).get(word):
        return own
    found = _CLAUSES.get(word, "")
    name = found.removeprefix("here it is ").partition("=")[0]
    if function == "connect":
        if word in _CALLS:
            return "it is an argument of embed() and stream()"
        return f"{found}, an argument of embed() and stream()" if name in _CALLS else found
    if word in CONNECT:
        return "it is an argument of connect()"
    if name in CONNECT and name not in takes:
        return f"{found}, an argument of connect()"
    return found


def unexpected(function: str, words: Sequence[str], takes: Sequence[str]) -> str:
    """What is wrong with keywords that a function does not take, and the words to use."""
    said = f"{function}() got an unexpected keyword {', '.join(words)}"
    known = list(dict.fromkeys(filter(None, (clause(word, function, takes) for word in words))))
    if known:
        return f"{said}: {'; '.join(known)}"
    from difflib import get_close_matches

    near = [each for word in words for each in get_close_matches(word, takes, n=1)]
    return f"{said}; did you mean {' or '.join(near)}?" if near else said


def answering(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose TypeError for an unknown keyword names the word to use."""

    @wraps(function)
    def called(*args: P.args, **keywords: P.kwargs) -> T:
        try:
            return function(*args, **keywords)
        except TypeError as error:
            if not in_call(error.__traceback__):
                raise
            raise improved(error, function, keywords) from None

    return called


def answering_later(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same for a coroutine function."""

    @wraps(function)
    async def called(*args: P.args, **keywords: P.kwargs) -> T:
        try:
            made = function(*args, **keywords)
        except TypeError as error:  # of the arguments: the coroutine has not begun
            raise improved(error, function, keywords) from None
        return await made

    return called


def in_call(trace: TracebackType | None) -> bool:
    """Whether the arguments were refused, so that the function itself has not begun."""
    return trace is not None and trace.tb_next is None


def improved(error: TypeError, function: Callable[..., Any], keywords: Mapping[str, object]) -> TypeError:
    """The error for these keywords in our words; the error itself where they are not what is wrong."""
    from inspect import signature

    known = signature(function).parameters
    takes = [name for name, one in known.items() if one.kind is one.KEYWORD_ONLY]
    unknown = [word for word in keywords if word not in known]
    return TypeError(unexpected(function.__name__, unknown, takes)) if unknown else error


def attribute(owner: object, name: str) -> AttributeError | None:
    """The error for a method or attribute that another library has; None where none has it.

    Args:
        owner: an embedder, its results, or this package's name.
        name: what was asked for.
    """
    if isinstance(owner, str):
        said, table = f"module {owner!r} has no attribute {name!r}", _MODULE
    else:
        said = f"{type(owner).__name__!r} object has no attribute {name!r}"
        table = _RESULTS if hasattr(type(owner), "vectors") else _METHODS
    here = next((here for here, words in table.items() if name in words.split()), "")
    return AttributeError(f"{said}: here it is {here}") if here else None


class Elsewhere:
    """`__enter__` or `__aenter__` of a class that does not have it: the error names what has it.

    A class counts as a context manager only with `__exit__` beside it, so no library takes it for one.
    """

    def __init__(self, said: str) -> None:
        self._said = said

    def __get__(self, instance: object, owner: type) -> Any:
        msg = f"{owner.__name__} {self._said}"
        raise AttributeError(msg)


def look_up(self: Any, name: str) -> Any:
    """`__getattr__` of a class: names the word to use. What is wrong inside a property of its own stays what it is."""
    if not name.startswith("_") and not hasattr(type(self), name) and (error := attribute(self, name)) is not None:
        raise error
    return object.__getattribute__(self, name)
