"""What is measured, and what embedkit is held to. A goal is a
ratio within interleaved rounds, so it survives a busy machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RUST = ("baseten", "baseten-base64")


@dataclass(frozen=True)
class Goal:
    """`metric` of `ours` within `limit` times the best of
    `against`; "cpu", "rate", "ideal" (of the wall) or "memory".
    """

    metric: str
    limit: float
    against: tuple[str, ...] = ()
    ours: str = "embedkit"


@dataclass(frozen=True)
class Scenario:
    """One table: so many texts of so many components, in batches, with so many requests in flight."""

    title: str
    peers: tuple[str, ...]
    texts: int
    batch: int
    inflight: int
    width: int = 1536
    latency: float = 0.0
    style: str = "short"
    tls: bool = False
    callers: bool = False
    goals: tuple[Goal, ...] = field(default=())

    @property
    def ideal(self) -> float:
        """Seconds that a client without any cost of its own would take; zero where only the machine is the limit."""
        return self.texts / self.batch / self.inflight * self.latency / 1000


SCENARIOS: dict[str, Scenario] = {
    "bulk-base64": Scenario(
        "128 texts per request, 1536 components as base64, 16 in flight",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", "aiohttp", "httpx", *RUST, "baseten-simd", "openai",
         "openai-aiohttp",
         "langchain", "pydantic-ai", "litellm"),
        40_960, 128, 16,
        goals=(Goal("cpu", 0.25, RUST), Goal("cpu", 0.08, ("openai",)), Goal("rate", 3.0, RUST)),
    ),
    "bulk-float": Scenario(
        "128 texts per request, 1024 components as text, 16 in flight",
        ("embedkit-float", "aiohttp-float", "baseten", "openai-float", "litellm"), 20_480, 128, 16, width=1024,
        goals=(Goal("cpu", 0.7, ("baseten",), "embedkit-float"),
         Goal("cpu", 0.025, ("openai-float",), "embedkit-float")),
    ),
    "bulk-double": Scenario(
        "the same, every number spelled as a double", ("embedkit-float", "aiohttp-float", "baseten"), 20_480, 128, 16,
        width=1024,
        style="double",
    ),
    "bulk-pretty": Scenario(
        "the same, one number per line", ("embedkit-float", "aiohttp-float", "baseten"), 20_480, 128, 16, width=1024,
        style="pretty",
    ),
    "bulk-tei": Scenario(
        "TEI's own route: 32 texts per request, 1024 components as text, 16 in flight",
        ("embedkit-tei", "huggingface-hub"),
        10_240, 32, 16, width=1024,
    ),
    "bulk-ollama": Scenario(
        "Ollama's own route: 32 texts per request, 1024 components as text, 16 in flight",
        ("embedkit-ollama", "ollama"),
        10_240, 32, 16, width=1024,
    ),
    "single": Scenario(
        "one text per request, 1536 components as base64, 128 in flight",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", "aiohttp-tuned-uvloop", "aiohttp", *RUST, "openai",
         "openai-aiohttp",
         "httpx", "langchain", "pydantic-ai", "litellm"),
        10_000, 1, 128,
        goals=(Goal("cpu", 1.1, ("aiohttp-tuned",)), Goal("cpu", 1.3, RUST), Goal("cpu", 1.0, RUST, "embedkit-uvloop")),
    ),
    "callers": Scenario(
        "128 tasks, each awaiting one text after the other",
        ("embedkit", "embedkit-uvloop", "embedkit-coalesce", "aiohttp-tuned", "baseten-base64", "openai"), 10_000, 1,
        128, callers=True,
    ),
    "latency-20k": Scenario(
        "20,000 texts, 32 per request, 64 in flight, each answered after 100 ms",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", "aiohttp", *RUST, "openai"), 20_000, 32, 64, latency=100.0,
        goals=(Goal("ideal", 0.85), Goal("cpu", 0.4, RUST)),
    ),
    "latency-200k": Scenario(
        "200,000 texts, 32 per request, 64 in flight, each answered after 100 ms",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", *RUST), 200_000, 32, 64, latency=100.0,
        goals=(Goal("ideal", 0.95),),
    ),
    "latency-512": Scenario(
        "32,768 texts, 32 per request, 512 in flight, each answered after 100 ms, connecting included",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", "aiohttp", *RUST, "openai"), 32_768, 32, 512, latency=100.0,
    ),
    "tls-single": Scenario(
        "one text per request over TLS, 64 in flight",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", *RUST, "openai", "catsu"), 10_000, 1, 64, tls=True,
        goals=(Goal("cpu", 1.2, ("baseten-base64",)),),
    ),
    "tls-bulk": Scenario(
        "128 texts per request over TLS, 16 in flight",
        ("embedkit", "embedkit-uvloop", "aiohttp-tuned", *RUST, "openai", "catsu"), 20_480, 128, 16, tls=True,
        goals=(Goal("cpu", 0.65, ("baseten-base64",)),),
    ),
    "memory": Scenario(
        "200,000 texts of 1536 components in one call: the most memory beyond what there was before",
        ("embedkit", "aiohttp-tuned", "aiohttp", *RUST, "openai"), 200_000, 128, 16, goals=(Goal("memory", 1.05),),
    ),
}  # fmt: skip

# Whole processes rather than calls, each with a module of its own.
MODULES = {
    "import": "benchmarks.import_time",
    "first": "benchmarks.first_vector",
    "frameworks": "benchmarks.frameworks",
}
