"""Providers in wheels of their own: found by their entry point, checked like ours; a broken one breaks nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent.parent
ACME = '''
"""Acme. https://docs.acme.example/embeddings"""

import msgspec

from embedkit.codec import decoder_of, JSON, Host, Limits, Reply, Request, Vector, compact, matrix, reject_unsupported, decode_reply, read_error_body, to_json


class _Answer(msgspec.Struct, frozen=True):
    vectors: list[Vector]
    used: int | None = None


_decoder = decoder_of(_Answer)


class Dialect(msgspec.Struct, frozen=True):
    target: object
    sends_dimensions = False

    @property
    def limits(self):
        return self.target.host.limits

    def encode(self, texts, options):
        reject_unsupported(options, "acme", truncate=(), input_type=("query", "document"))
        body = compact(model=self.target.model, inputs=texts, kind=options.input_type)
        return Request(self.target.url("/embed"), to_json({**body, **options.extra}), JSON)

    def decode(self, response, options, count, out=None):
        answer = decode_reply(_decoder, response)
        return Reply(matrix(answer.vectors, options, count, out), "", answer.used)

    def explain(self, response):
        return read_error_body(response).message


HOSTS = (
    Host(name="acme", dialect=Dialect, base_url="https://api.acme.example/v1", key_variables=("ACME_API_KEY",), key_required=True,
         own_domains=("api.acme.example",), limits=Limits(max_texts=2)),
    Host(name="openai", dialect=Dialect, base_url="https://thief.example/v1", key_variables=("OPENAI_API_KEY",), own_domains=("thief.example",)),
)
'''
GOLDENS = {
    "200-two": {
        "source": "written by the test", "connect": {"model": "acme:wide", "api_key": "k"}, "texts": ["one", "two"], "options": {"input_type": "query"},
        "request": {
            "url": "https://api.acme.example/v1/embed", "headers": {"authorization": "Bearer k"},
            "body": {"model": "wide", "inputs": ["one", "two"], "kind": "query"},
        },
        "response": {"status": 200, "body": {"vectors": [[1, 2], [3, 4]], "used": 7}},
        "expect": {"vectors": [[1, 2], [3, 4]], "tokens": 7},
    },
    "401-key": {
        "source": "written by the test", "connect": {"model": "acme:wide", "api_key": "k"}, "texts": ["one"],
        "request": {"url": "https://api.acme.example/v1/embed", "body": {"model": "wide", "inputs": ["one"]}},
        "response": {"status": 401, "body": {"error": {"message": "no such key"}}},
        "expect": {"error": "AuthError", "status": 401, "message": "no such key"},
    },
}  # fmt: skip


def wheel(folder, name, version, code, entry=None):
    """A wheel of one module, with one entry point; its path. No build tool, so nothing is fetched."""
    info, module = f"{name}-{version}.dist-info", name.removesuffix("_embedkit")
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\nRequires-Dist: embedkit-client\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[embedkit.providers]\n{entry or module} = {module}\n",
    }
    sums = {
        path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for path, text in files.items()
    }
    record = "".join(f"{path},sha256={sums[path]},{len(text.encode())}\n" for path, text in files.items())
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return made


def installed(folder, *wheels):
    """A directory for PYTHONPATH into which pip has installed these wheels, without an index."""
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--target", target, *wheels],
        check=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    """Where the wheel of Acme is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("acme")
    return installed(folder, wheel(folder, "acme_embedkit", "1.0", ACME))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Acme among five that are broken, each in its own way."""
    folder = tmp_path_factory.mktemp("crowd")
    return installed(
        folder,
        wheel(folder, "acme_embedkit", "1.0", ACME),
        wheel(folder, "needy_embedkit", "0.1", "import a_module_that_is_not_there"),
        wheel(folder, "angry_embedkit", "0.2", "raise RuntimeError('bad day')"),
        wheel(folder, "bare_embedkit", "0.3", "DIALECT = None"),
        wheel(folder, "odd_embedkit", "0.4", "HOSTS = ('acme',)"),
        wheel(folder, "twin_embedkit", "0.5", "from acme import HOSTS", entry="twin"),
        wheel(folder, "rowless_embedkit", "0.6", "HOSTS = ()"),
    )


def run(site, script):
    """What a script prints with these wheels installed. Warnings are errors."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd=HERE, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(site)]), "OPENAI_API_KEY": "sk-openai", "ACME_API_KEY": "sk-acme"},
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    return found.stdout.strip()


def refused(site, model):
    """What `connect` says of a model it cannot connect to."""
    return run(
        site,
        f"import embedkit\ntry: print(embedkit.connect({model!r}))\nexcept embedkit.ConfigError as error: print(error)",
    )


def test_a_provider_of_another_wheel_is_one_like_any_other(acme):
    """`connect("acme:model")`: its key, its limits, its dialect; the engine does the rest."""
    said = run(
        acme,
        """
        import asyncio, embedkit
        from embedkit.testing import FakeExchange

        def answer(request):
            import json
            texts = json.loads(request.body)["inputs"]
            return {"vectors": [[len(text), 0.0] for text in texts], "used": len(texts)}

        exchange = FakeExchange(answer)
        embedder = embedkit.connect("acme:wide", exchange=exchange)
        result = asyncio.run(embedder.embed(["a", "bb", "ccc"]))
        print(result.vectors.tolist(), result.usage.tokens, len(exchange.requests), exchange.requests[0].headers["authorization"])
        """,
    )

    assert said == "[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]] 3 2 Bearer sk-acme"


def test_its_author_can_check_it(acme, tmp_path):
    """`check_codec` takes golden exchanges of any provider, and finds what is wrong with one."""
    for name, golden in GOLDENS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(golden))
    script = (
        f"import asyncio; from embedkit.testing import check_codec; print(asyncio.run(check_codec({str(tmp_path)!r})))"
    )
    passed = run(acme, script)
    wrong = {**GOLDENS["200-two"], "expect": {"vectors": [[3, 4], [1, 2]]}}
    (tmp_path / "200-two.json").write_text(json.dumps(wrong))
    failed = run(acme, f"try:\n    {script}\nexcept AssertionError as error: print(error)")

    assert passed == "2"
    assert "/200-two.json: expected the vectors [[3, 4], [1, 2]], got [[1.0, 2.0], [3.0, 4.0]]" in failed


BASES = {
    "written in full": ACME,
    "encode and decode alone": ACME.partition("    @property\n    def limits")[0].replace(
        "    sends_dimensions = False\n", ""
    )
    + ACME[ACME.index("    def encode") : ACME.index("    def explain")]
    + ACME[ACME.index("HOSTS") :],
}
BASES |= {
    "not a Struct": BASES["encode and decode alone"].replace(
        "class Dialect(msgspec.Struct, frozen=True):\n    target: object", "class Dialect:\n    def __init__(self, target): self.target = target"
    ),
    "inherits": BASES["encode and decode alone"].replace(
        "class Dialect(msgspec.Struct, frozen=True):\n    target: object\n", "from embedkit import codec\nclass Dialect(codec.Dialect, frozen=True):"
    ),
}  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_a_codec_may_inherit_or_write_two_functions(tmp_path, base):
    """A class with all members, one with `encode` and `decode`, and one that inherits all pass the check."""
    wheel_of_it = installed(tmp_path, wheel(tmp_path, "acme_embedkit", "1.0", BASES[base]))
    for name, golden in GOLDENS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(golden))
    script = f"""
        import asyncio, embedkit
        from embedkit.testing import FakeExchange, check_codec
        embedder = embedkit.connect("acme:wide", exchange=FakeExchange([]))
        print(asyncio.run(check_codec({str(tmp_path)!r})), embedder.limits.max_texts)
    """

    assert run(wheel_of_it, script) == "2 2"


def test_it_is_there_on_the_command_line(acme, tmp_path):
    """`embedkit check acme:wide` asks it: here, that nobody is at home."""
    found = subprocess.run(
        [sys.executable, "-m", "embedkit", "check", "acme:wide", "--base-url", "http://127.0.0.1:1"], capture_output=True, text=True, cwd=HERE,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(acme)])},
    )  # fmt: skip

    assert found.returncode == 1
    assert found.stderr.startswith("embedkit: cannot connect to http://127.0.0.1:1")


@pytest.mark.parametrize("site", ["acme", "crowd"])
def test_a_built_in_name_cannot_be_taken(request, site):
    """A wheel that calls a host `openai` is not asked, and sees no key: with or without broken ones beside it."""
    said = run(
        request.getfixturevalue(site),
        """
        import sys, embedkit
        from embedkit.providers import hosts
        print(embedkit.connect("openai:m").base_url, embedkit.connect("azure:m", base_url="https://a.openai.azure.com").provider, "acme" in sys.modules)
        names = [host.name for host in hosts()]
        print(names.count("openai"), names.count("acme"), next(host for host in hosts() if host.name == "openai").base_url)
        """,
    )

    assert said.splitlines() == ["https://api.openai.com/v1 azure False", "1 1 https://api.openai.com/v1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needy", "needy-embedkit 0.1 (ModuleNotFoundError: No module named 'a_module_that_is_not_there')"),
        ("angry", "angry-embedkit 0.2 (RuntimeError: bad day)"),
        ("bare", "bare-embedkit 0.3 (AttributeError: module 'bare' has no attribute 'HOSTS')"),
        ("odd", "odd-embedkit 0.4 (HOSTS of odd holds something that is no embedkit.codec.Host)"),
    ],
)
def test_a_broken_wheel_is_named_when_it_is_asked_for(crowd, name, message):
    """Which wheel, and what its import said."""
    assert refused(crowd, f"{name}:model") == f"provider {name!r} cannot be loaded: {message}"


def test_two_wheels_for_one_name_are_both_named(crowd):
    """Neither is guessed to be the right one."""
    assert (
        refused(crowd, "acme:wide")
        == "provider 'acme' is brought by acme-embedkit 1.0 and by twin-embedkit 0.5: uninstall all but one"
    )


def test_a_misspelt_name_lists_the_known_and_what_was_not_loaded(acme, crowd):
    """The wheel that would have brought it may be among the broken ones."""
    alone, among = refused(acme, "acne:wide"), refused(crowd, "acne:wide")

    assert alone.startswith("unknown provider 'acne'; did you mean acme")
    assert "not loaded" not in alone
    assert among.count("; not loaded: ") == 4
    assert "not loaded: angry-embedkit 0.2 (RuntimeError: bad day)" in among
