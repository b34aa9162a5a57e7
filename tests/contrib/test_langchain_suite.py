"""LangChain's own standard tests of embeddings, unit and integration, on the bundled model and on a real server."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from embedkit._hints import Later
from tests.support.servers.llamacpp import start

pytestmark = [pytest.mark.engines, pytest.mark.anyio]
adapter = Later("embedkit.contrib.langchain")
LOCAL = "local:all-minilm-l6-v2"


@pytest.fixture(scope="module")
def server():
    """One real server for its whole suite."""
    with start(threads=1, parallel=4) as running:
        yield running


if find_spec("langchain_tests") is None:

    def test_langchain_s_own_suite_is_installed():
        """The suite is part of the extra `engines`."""
        pytest.fail("langchain-tests is not installed: make test-engines installs it")

else:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests
    from langchain_tests.unit_tests import EmbeddingsUnitTests

    class TestUnit(EmbeddingsUnitTests):
        """The unit suite."""

        @property
        def embeddings_class(self):
            return adapter.EmbedkitEmbeddings

        @property
        def embedding_model_params(self):
            return {"model": LOCAL}

        @property
        def init_from_env_params(self):
            return {"EMBEDKIT_MODEL": "openai:m", "OPENAI_API_KEY": "k"}, {}, {"model": "openai:m"}

    class TestIntegrationLocal(EmbeddingsIntegrationTests):
        """The integration suite on the bundled model."""

        @property
        def embeddings_class(self):
            return adapter.EmbedkitEmbeddings

        @property
        def embedding_model_params(self):
            return {"model": LOCAL}

    class TestIntegrationServer(EmbeddingsIntegrationTests):
        """The integration suite on a real llama.cpp server."""

        @pytest.fixture
        def model(self, server):
            return adapter.EmbedkitEmbeddings(model=f"llamacpp:{server.model}", base_url=server.url)

        @property
        def embeddings_class(self):
            return adapter.EmbedkitEmbeddings
