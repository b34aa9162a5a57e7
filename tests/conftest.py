"""Fixtures for every test. Async tests run on asyncio; those
that use fakes only ask for `any_loop` and run on trio too.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parent.parent.parent / "shared"

# In the background of a shell without job control it is ignored, and children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a key, a base URL or a proxy of the machine it runs on."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_ENDPOINT", "_TOKEN")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in (
        "OLLAMA_HOST", "EMBEDKIT_MODEL", "EMBEDKIT_MODEL_DIR", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_VERSION",
        "CO_API_URL", "ATLAS_API_PATH", "VOYAGE_API_KEY_PATH", "CLOUDFLARE_ACCOUNT_ID",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_REGION", "AWS_DEFAULT_REGION",
        "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "SNOWFLAKE_ACCOUNT", "SNOWFLAKE_ACCOUNT_ID", "SNOWFLAKE_PAT",
        "SNOWFLAKE_JWT", "WATSONX_APIKEY", "WATSONX_PROJECT_ID", "WATSONX_URL",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", os.devnull)  # nor the key in a file of its user


@pytest.fixture(autouse=True)
def _quota_of_its_own() -> None:
    """No test waits for what another one's refusals have shown of the same account."""
    from embedkit._embedders import agreement
    from embedkit._traffic import quota

    quota._forget()
    agreement._forget()


@pytest.fixture
def shared() -> Path:
    """The recorded exchanges beside the checkout; a test that needs them is skipped, visibly, where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no recorded exchanges: {SHARED.name}/ is not beside the checkout")
    return SHARED


NOTES = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line to the summary of the run: what was proved, and what was set aside."""
    return request.config.stash.setdefault(NOTES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what tests had to tell."""
    for line in config.stash.get(NOTES, []):
        terminalreporter.write_line(line)
