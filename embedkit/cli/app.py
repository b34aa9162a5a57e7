"""The commands: click reads the line, an embedder does the
work, `sources` reads, `sinks` writes, `progress` tells of it.

Every error becomes one line on stderr and an exit code; `--traceback` adds where it came from.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from .._connect.factory import connect
from .._connect.model_name import split
from .._install import DISTRIBUTION
from .._types import DType, InputType, Truncate
from ..codec import Parameter
from ..errors import ConfigError, EmbedkitError
from ..providers import find
from .progress import in_line

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from click.shell_completion import CompletionItem

    from .._embedders.base import Embedder


T = TypeVar("T")
OF_LOCAL = {
    "path": Parameter(help="a directory with model.onnx"),
    "threads": Parameter(takes=(int,), help="how many processor cores to use"),
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
FAILED, USAGE, PARTIAL, INTERRUPTED, UNREAD = 1, 2, 3, 130, 141


class FileName(click.types.StringParamType):
    """A file, a folder, a pattern, "-" or an address: text as it stands, which shells complete as a file's name."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that the shell finds."""
        from click.shell_completion import CompletionItem

        del ctx, param
        return [CompletionItem(incomplete, type="file")]


FILE = FileName()


class Root(click.Group):
    """The group, and the one place where errors become exit codes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; whether machines read the output is known even where the rest of it makes no sense."""
        ctx.meta["json"] = "--json" in args
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command line. click ends a Ctrl-C meanwhile as a failure of the command (exit code 1)."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:
            _say("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _give_stdout_up()
            raise click.exceptions.Exit(UNREAD) from None
        except KeyboardInterrupt as error:
            _say("interrupted")
            _tell_machine(ctx, error, INTERRUPTED)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except click.UsageError as error:
            _tell_machine(ctx, error, USAGE)
            raise _in_our_words(error) from None
        except (EmbedkitError, OSError) as error:
            if ctx.meta.get("traceback"):
                import traceback

                click.echo(traceback.format_exc(), err=True)
            hint = "; rows count from 0" if getattr(error, "rows", ()) else ""
            _say(f"{_line(error)}{hint}")
            for note in getattr(error, "__notes__", ()):
                _say(note)
            ours = isinstance(error, ConfigError) or not isinstance(error, EmbedkitError)
            code = USAGE if ours else FAILED
            if _is_full_stdout(error):
                _give_stdout_up()
            _tell_machine(ctx, error, code)
            raise click.exceptions.Exit(code) from None


def _say(text: str) -> None:
    click.echo(f"embedkit: {text}", err=True)


def _tell_machine(ctx: click.Context, error: BaseException, code: int) -> None:
    """With --json, the error on stdout, as {"error": {…}} in one line."""
    if not ctx.meta.get("json"):
        return
    message = error.format_message() if isinstance(error, click.ClickException) else _line(error)
    facts = {name: getattr(error, name, None) for name in ("status", "code", "retryable", "retry_after", "attempts")}
    said = {
        "kind": KINDS.get(type(error), type(error).__name__),
        "message": message or "interrupted",
        "exit_code": code,
        "notes": list(getattr(error, "__notes__", ())),
        **({"rows": list(error.rows), **facts} if isinstance(error, EmbedkitError) else {}),
    }
    with contextlib.suppress(OSError):  # stdout is full or gone: stderr has it
        click.echo(json.dumps({"error": said}, ensure_ascii=False, default=str))


KINDS: dict[type[BaseException], str] = {KeyboardInterrupt: "Interrupted"}
# What other tools call an option → ours.
WORDS = {
    "-m": "--model-name --model-id --provider",
    "-o": "--output-file --out --output-path --outfile",
    "--api-key-env": "--api-key --key --token --apikey",
    "--base-url": "--api-base --endpoint --url --host --server --api-url",
    "--retries": "--max-retries --num-retries --retry",
    "--max-concurrency": "--concurrency --workers --num-workers --max-workers --parallel --threads -j --jobs -j",
    "--rate": "--rpm --tpm --rate-limit --requests-per-minute",
    "--column": "--text-column --text-field --field --text-key",
    "--key": "--id-column --id-field --id",
    "--force": "--overwrite --replace",
    "--dimensions": "--dim --dims --dimension --output-dimension",
    "--dtype": "--encoding-format --precision --output-dtype --embedding-type",
    "--input-type": "--task --task-type --prompt-name",
    "--ca-file": "--cacert --ca-bundle --cert",
    "--insecure": "--no-verify --no-verify-ssl",
    "-k": "--top-k --topk --limit --count -n",
    "--max-cost": "--budget",
    "--json": "--format --output-json",
}
NONE = {"--batch-size": "batches are made within the provider's limits", "--resume": "the same command resumes a job"}


def _in_our_words(error: click.UsageError) -> click.UsageError:
    """The error for an unknown option with what it is called here, where the command has that."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    given = error.option_name.partition("=")[0]
    there = {name for one in error.ctx.command.params for name in one.opts}
    ours = next((name for name, others in WORDS.items() if given in others.split() and name in there), "")
    if ours:
        return click.UsageError(f"No such option '{given}'. Did you mean '{ours}'?", error.ctx)
    if given in NONE:
        return click.UsageError(f"No such option '{given}': leave it out; {NONE[given]}.", error.ctx)
    return error


def _is_full_stdout(error: BaseException) -> bool:
    """Whether stdout could not be written; every other file is named by its error."""
    return isinstance(error, OSError) and error.filename is None and error.errno in NO_ROOM


def _give_stdout_up() -> None:
    """Write to nowhere, so that flushing the buffer at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, EmbedkitError) and error.strerror:
        name = error.filename or ("stdout" if _is_full_stdout(error) else "")
        return f"{name}: {error.strerror}{_stdin_instead(error)}" if name else error.strerror
    return in_line(error)


def _stdin_instead(error: OSError) -> str:
    """Where a missing file has the name of a text: how that is embedded."""
    name = str(error.filename)
    if not isinstance(error, FileNotFoundError) or " " not in name or Path(name).suffix or Path(name).name != name:
        return ""
    return "; a text goes through stdin: echo TEXT | embedkit embed -"


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import anyio

    return anyio.run(work, backend_options={"use_uvloop": find_spec("uvloop") is not None})


CODES = {
    0: "done",
    1: "the provider or the network failed",
    2: "usage, configuration or a bad file",
    3: "done but for some rows",
    4: "stopped at a limit of tokens or cost",
    130: "Ctrl-C, 143 SIGTERM, 129 SIGHUP",
    141: "nobody reads the output",
}
LOCAL_CODES = (0, 2, 130, 141)  # of a command that asks no provider


def codes(*numbers: int, **others: str) -> str:
    """The last paragraph of a command's help: its exit codes. `others`: number → why, where the words differ."""
    why = {**CODES, **{int(number.removeprefix("c")): words for number, words in others.items()}}
    return "Exit codes: " + "; ".join(f"{number} {why[number]}" for number in numbers or CODES) + "."


@click.group(
    cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=codes()
)
@click.version_option(package_name=DISTRIBUTION, message="%(prog)s %(version)s")
def root() -> None:
    """Text in, vectors out: any embedding provider, from the command line.

    A model is "provider:model", like openai:text-embedding-3-small or ollama:nomic-embed-text; without one it is what
    EMBEDKIT_MODEL names, else the bundled model. Keys are
    read from the provider's own variables (OPENAI_API_KEY …).
    """


def _remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[str(parameter.name)] = value


def _asks(command: Callable[..., None], *, shape: bool = True) -> Callable[..., None]:
    """The options that say how to connect; without `shape` not those of the vectors' width and type."""
    of_shape = (
        click.option("--dimensions", type=click.IntRange(min=1), metavar="N", help="Components per vector."),
        click.option("--dtype", type=click.Choice(get_args(DType)), help="Their type; float32 unless given."),
    )
    options = (
        click.option("--base-url", metavar="URL", help="Where the provider is, as its own docs call it."),
        click.option(
            "--api-key-env", metavar="NAME", help="The environment variable that holds the key (its name, not the key)."
        ),
        click.option("--input-type", type=click.Choice(get_args(InputType)), help="What the texts are for."),
        *(of_shape if shape else ()),
        click.option(
            "--truncate",
            type=click.Choice(get_args(Truncate)),
            help="Cut over-long texts, or insist that they are refused.",
        ),
        click.option(
            "--normalize/--no-normalize", default=None, help="Make every vector unit length, or leave it as it comes."
        ),
        click.option(
            "--param",
            "parameters",
            metavar="NAME=VALUE",
            multiple=True,
            help="What only this provider takes, as often as needed. Where it takes a number, true or false, or an "
            'object, VALUE is JSON (keep_alive=-1, legacy=false, model_options={"num_ctx": 2048}); where it takes '
            "text, VALUE is the text as it stands (api_version=20241021), or in JSON's double quotes.",
        ),
        click.option(
            "--ca-file", type=FILE, metavar="PATH", help="Certificates (PEM) to trust instead of the system's."
        ),
        click.option(
            "--insecure",
            is_flag=True,
            help="Believe any server: verify no certificate. Your key goes to whoever answers.",
        ),
        click.option(
            "--proxy", metavar="URL", help="Proxy to go through; else HTTPS_PROXY, HTTP_PROXY and NO_PROXY say."
        ),
        click.option(
            "--traceback",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="With an error, show where it came from.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _connected(model: str | None, *, api_key_env: str | None, parameters: tuple[str, ...], **asked: Any) -> Embedder:
    """The embedder that the options ask for."""
    given = {name: value for name, value in asked.items() if value is not None}
    given.update(_trust(given.pop("ca_file", None), insecure=given.pop("insecure")))
    if api_key_env is not None:
        given["api_key"] = os.environ.get(api_key_env) or _no_key()
    try:
        return connect(model, **given, **_parameters(split(model)[0], parameters))
    except TypeError as error:
        raise ConfigError(str(error)) from error


def _trust(ca_file: str | None, *, insecure: bool) -> dict[str, Any]:
    """`ssl=` for `connect`; ConfigError where the file holds no certificates."""
    if ca_file is None:
        return {"ssl": False} if insecure else {}
    if insecure:
        msg = "--ca-file and --insecure contradict each other: pass one of them"
        raise ConfigError(msg)
    import ssl

    if not ca_file:  # the ssl module would take it for none
        msg = "--ca-file is empty: pass the path of certificates in PEM, or leave it out"
        raise ConfigError(msg)
    try:
        return {"ssl": ssl.create_default_context(cafile=ca_file)}
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = f"it holds no certificates in PEM ({error})"
        if isinstance(error, FileNotFoundError):
            why = "there is no such file"
        elif isinstance(error, IsADirectoryError):
            why = "this is a folder; name a file"
        msg = f"--ca-file {ca_file}: {why}"
        raise ConfigError(msg) from None


def _no_key() -> str:
    # The name is not repeated: whoever gets it wrong may have given the key itself.
    msg = (
        "--api-key-env: there is no such variable, or it is empty (it takes the variable's name, never the key itself)"
    )
    raise ConfigError(msg)


def _parameters(provider: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    """Host parameters, each of the kind that it takes. Credentials are
    refused: a command line can be read by others and is remembered.
    """
    known = OF_LOCAL if provider == "local" else find(provider).parameters
    taken: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or name not in known:
            takes = ", ".join(each for each, one in known.items() if not one.secret) or "none"
            msg = f"--param takes NAME=VALUE, with a parameter of {provider}'s own (there is {takes})"
            raise ConfigError(msg)
        declared = known[name]
        if declared.secret:
            instead = (
                f": set {' or '.join(declared.variables)} instead"
                if declared.variables
                else ", and those are not given here"
            )
            msg = f"--param {name} is a credential{instead}"
            raise ConfigError(msg)
        if name in taken:
            msg = f"--param {name} is given twice"
            raise ConfigError(msg)
        taken[name] = declared.read(name, declared.spelled(value))
    return taken
