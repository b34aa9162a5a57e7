"""One chunk of an input on its way through batch jobs: upload, create, poll, fetch, and again for what is missing.

Every step can be the last: what must be known to go on is in the record, which is stored before the next step, and in
files of the job's folder that are whole or not there.

- The lines of a job are written down before anything is uploaded.
- A create is announced in the record (`asked`) before it is sent, with a key of its own. Where the answer was lost, the
  key is looked for in the provider's list, twice, before the job is created again.
- The job's id is stored before the first poll, and the answers are on disk before the record says so, with their
  checksums: answers that are damaged since are fetched again.
- To send a text again is to pay for it again. So answers that nobody can read are no reason for it, and where some of
  them cannot be read, or the provider says that it has none, it is asked for them once more before.
- An upload whose answer was lost is sent again: it leaves a file that nobody uses, and no job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import msgspec

from ..._batching.long_text import SURE, head
from ..._batching.plan import tightened
from ..._types import Embeddings, Limits, Options, RequestCount, Usage
from ...codec import Batch, Batches, Caps, job_failure
from ...codec.vector_math import missing_rows, missing_value
from ...errors import (
    ApiError,
    ClosedError,
    ConfigError,
    DecodeError,
    EmbedkitError,
    InvalidInputError,
    NotFoundError,
    RateLimitError,
    TooLargeError,
    TransportError,
)
from ..disk import checksum_of
from .answers import Answers, Reads, Verdict, about_texts
from .texts import (
    Line,
    Places,
    answer_lines,
    key_of,
    lines_of,
    names_a_line,
    read_lines,
    read_texts,
    whole_file,
    write_lines,
    write_places,
)

if TYPE_CHECKING:
    from ..._embedders.http import HttpEmbedder
    from ..._types import Reply, Request, Response
    from ...codec import OutputRows

T = TypeVar("T")
PATIENT = 10  # failures in a row of one chunk's requests before they are the caller's; each is tried again by itself
FULL = 24 * 3600.0  # seconds for which a chunk waits for room at the provider
SHORT, LONG = 300.0, 3600.0  # seconds for a request, and for an upload or a download
LOOKS, PAGES = 2, 100  # times a lost job is looked for, and pages of the list each time
HALVINGS = 6  # times jobs are made smaller because there is no room; a quota of less than a 64th is none
PIECE = 2**22  # bytes of answers read before others have a turn


class Store(Protocol):
    """Where the records of chunks are kept, by the chunk's number. What `put` was given is durable when it returns."""

    def get(self, number: int) -> dict[str, Any] | None:
        """The record put last; None: there is none."""
        ...

    def put(self, number: int, record: dict[str, Any]) -> None:
        """Keep a record, JSON, in place of the one before."""
        ...


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """How often a job is asked how it stands: after `first` seconds, then `growth` times later each time, at most
    every `most` seconds. A change of its state begins anew.
    """

    first: float = 30.0
    most: float = 300.0
    growth: float = 1.5


class BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk has come a step further.

    Attributes:
        chunk: its number, from 0.
        start, rows: its first row of the input, and how many it has.
        state: "uploaded", "created", "found", a state in the provider's own word, "fetched", "again", "ready",
            "waiting", "failing".
        job: the provider's id of its job; empty where there is none.
        total, finished: lines of the job, as the provider counts them; None: not told.
        message: what else there is to say; empty: nothing.
    """

    chunk: int
    start: int
    rows: int
    state: str
    job: str = ""
    total: int | None = None
    finished: int | None = None
    message: str = ""


class Work:
    """What all the chunks of an input share.

    Attributes:
        embedder: it asks, and reads what comes.
        options: as the caller wants the rows, and as the provider is asked for them.
        cuts: tokens to which texts are cut here; None: they are not.
        full_until: when, by `now`, the provider may have room for another job.
        most: lines of one job, where one of more was refused for holding too many tokens.
        halvings: times it was made smaller without being told that a job was too large by itself.
        created: jobs that were created and are not finished.
    """

    def __init__(
        self,
        embedder: HttpEmbedder,
        options: Options,
        *,
        caps: Caps,
        folder: Path,
        store: Store,
        poll: Poll,
        now: Callable[[], float],
        new_key: Callable[[], str],
        tell: Callable[[BatchEvent], object],
    ) -> None:
        self.embedder = embedder
        self.longest = embedder.most_text_tokens(options)
        self.cuts = self.longest if options.truncate == "end" and not embedder.cuts_texts() else None
        options = options if self.cuts is None else msgspec.structs.replace(options, truncate=None)
        self.options = (embedder.as_sent(options), options)
        self.caps = caps
        self.folder = folder
        self.store = store
        self.poll = poll
        self.now = now
        self.new_key = new_key
        self.tell = tell
        self.tally = RequestCount(patient=True)
        self.full_until = 0.0
        self.most = caps.lines
        self.halvings = 0
        self.created = 0

    @property
    def api(self) -> Batches:
        """The provider's API for batch jobs, by the dialect as it is known by now."""
        return self.embedder.batches()

    @property
    def line_limits(self) -> Limits:
        """What one line may hold."""
        return tightened(self.embedder.known_limits(), Limits(max_texts=self.caps.texts))

    async def ask(self, request: Request, read: Callable[[Response], T], tries: int | None = None) -> T:
        """What `read` makes of the answer to a short request."""
        return await self.embedder.ask(request, read, self.tally, seconds=SHORT, tries=tries)

    async def find(self, key: str) -> str | None:
        """The id of the job with this key of ours; None: the provider's list does not have it."""
        api, after = self.api, None
        for _ in range(PAGES):
            found, after = await self.ask(api.listing(after), partial(api.listed, after=after))
            for each in found:
                if each.key == key:
                    return each.id
            if after is None:
                break
        return None

    def texts_at(self, number: int) -> Path:
        """Where the texts of a chunk lie."""
        return self.folder / f"{name_of(number)}.texts"

    def remove(self, number: int) -> None:
        """Delete the files of a chunk."""
        for path in self.folder.glob(f"{name_of(number)}[.-]*"):
            with suppress(OSError):  # Windows keeps a file that is mapped; it goes with the folder
                path.unlink(missing_ok=True)

    def reader(self) -> Reads:
        """Reads one answer after the other. A refusal of which the dialect learns something may pass the next time."""
        codec = self.api.codec

        def read(response: Response, count: int, out: OutputRows) -> tuple[Reply | None, EmbedkitError | None]:
            reply, error = self.embedder.answered(response, self.options, count, out)
            if error is not None and not response.ok and codec.learn(response) != codec:
                self.embedder.adopt(response)
                error.retryable = True
            return reply, error

        return read


class Chunk:
    """Some rows of an input.

    Attributes:
        ready: every row has its vector or its error.
        due: when, by `now`, there is something to do.
        rows: how many.
        failure: why it goes no further in this run; None: it does.
    """

    def __init__(self, work: Work, number: int, record: dict[str, Any], places: Places) -> None:
        self.number = number
        self.start: int = record["start"]
        self.rows = len(places.of)
        self.ready = False
        self.due = 0.0
        self.failure: EmbedkitError | None = None
        self._work = work
        self._record = record
        self._of, self._faults, self._count = places.of, places.faults, len(places.texts)
        self._failed: dict[int, EmbedkitError] = {}
        self._answers: Answers | None = None
        self._interval = work.poll.first
        self._said = ""
        self._failures = 0
        self._looks = 0
        self._waits_since: float | None = None
        self._fresh: set[str] = set()  # files uploaded by this process
        self._missed: set[str] = set()  # files of answers that were asked for once, and not found
        if self.job:
            work.created += 1
        write_places(work.texts_at(number), places)  # also over an earlier file, which may be damaged by now

    @property
    def job(self) -> str:
        """The provider's id of the job that is under way; empty: there is none."""
        return unfinished_job(self._record)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Do what can be done now. What may pass by itself is tried again later, so many times in a row; where it does
        not, or never will, that is the `failure`, and the record says where to go on.

        Raises:
            ClosedError: the embedder was closed.
            ConfigError: the job's folder is not what it was.
        """
        while not self.ready and self.failure is None and self.due <= self._work.now():
            try:
                await self._next()
            except (ClosedError, ConfigError):
                raise
            except EmbedkitError as error:
                self._failures += 1
                passing = error.retryable or isinstance(error, DecodeError)
                if not passing or self._failures >= PATIENT:
                    self.failure = error
                self._wait(max(error.retry_after or 0.0, self._interval))
                self._tell("failing", message=str(error))
            else:
                self._failures = 0

    async def _next(self) -> None:
        rounds = self._rounds
        if not rounds or rounds[-1].get("fetched"):
            await self._settle()
            return
        current = rounds[-1]
        if "job" in current:
            await self._poll(current)
        elif current.get("asked"):
            await self._look(current)
        elif "file" in current:
            await self._create(current)
        else:
            await self._upload(current)

    async def _upload(self, current: dict[str, Any]) -> None:
        api, work = self._work.api, self._work
        name, path = f"{current['key']}.jsonl", self._path("jsonl", self._last)
        if not path.exists():
            self._write(self._lines(self._last), None)
        content = path.read_bytes()
        begin = api.begin_upload(name, len(content))
        begun = None if begin is None else await self._ask(begin, lambda response: response)
        request = api.upload(name, content, begun)
        tries = None if begin is None else 1  # what was begun is not sent twice: the next try begins anew
        current["file"] = await work.embedder.ask(request, api.uploaded, work.tally, seconds=LONG, tries=tries)
        self._fresh.add(current["file"])
        self._keep()
        self._tell("uploaded")

    async def _create(self, current: dict[str, Any]) -> None:
        work, api = self._work, self._work.api
        if work.full_until > work.now():
            self.due = work.full_until
            return
        current["asked"] = True
        self._keep()
        request = api.create(current["key"], current["file"], work.options[0])
        try:
            job = await self._ask(request, api.batch, tries=1)
        except (ApiError, TransportError) as error:
            await self._not_created(current, error)
            return
        self._adopted(current, job.id, "created")

    async def _not_created(self, current: dict[str, Any], error: ApiError | TransportError) -> None:
        """A create was refused, or its answer is lost."""
        status = error.status if isinstance(error, ApiError) else None
        refused = (status is not None and status < 500 and status != 408) or (  # noqa: PLR2004 (what never began)
            isinstance(error, TransportError) and not error.sent
        )
        if not refused:
            raise error
        current["asked"] = False
        if isinstance(error, (NotFoundError, InvalidInputError)) and current["file"] not in self._fresh:
            del current["file"]  # of an earlier run; it may be gone by now
            self._keep()
            return
        self._keep()
        if isinstance(error, TooLargeError):
            self._halve(error)
        elif isinstance(error, RateLimitError):
            self._full(error, halve=error.about == "tokens")
        else:
            raise error

    async def _look(self, current: dict[str, Any]) -> None:
        """Look for a job that may have been created, by its key."""
        job = await self._work.find(current["key"])
        if job is not None:
            self._adopted(current, job, "found")
            return
        self._looks += 1
        if self._looks % LOOKS:
            self._wait(self._work.poll.first)  # it may not be listed yet
            return
        current["asked"] = False
        self._keep()

    def _adopted(self, current: dict[str, Any], job: str, how: str) -> None:
        current["job"] = job
        self._keep()
        self._work.created += 1
        self._waits_since = None
        self._path("jsonl", self._last).unlink(missing_ok=True)
        self._tell(how, job=job)
        self._wait(self._work.poll.first)

    async def _poll(self, current: dict[str, Any]) -> None:
        try:
            job = await self._ask(self._work.api.poll(current["job"]), self._work.api.batch)
        except NotFoundError as error:
            # Another key of the account may not see it. To send its texts again would be to pay for them twice.
            error.add_note(
                f"the batch job {current['job']} is not found with this key: use the key that it was made with, or "
                "begin anew with --force, which pays for all texts again"
            )
            raise
        if job.said != self._said:
            self._said, self._interval = job.said, self._work.poll.first
            self._tell(job.said, job=job.id, total=job.total, finished=job.finished)
        if job.state == "running":
            self._wait(self._interval)
            self._interval = min(self._interval * self._work.poll.growth, self._work.poll.most)
            return
        self._said, self._interval = "", self._work.poll.first
        if job.state == "failed" and not job.files and not job.answers:
            self._job_failed(job)
            return
        await self._fetch(self._last, job)
        current["fetched"] = True
        self._keep()
        self._work.created = max(0, self._work.created - 1)
        self._tell("fetched", job=job.id)
        if job.state == "cancelled" and not current.get("stopped"):
            msg = (
                f"the batch job {job.id} was canceled at the provider; what it had finished is kept, and what is left "
                "is sent when this is run again"
            )
            raise self._signed(ApiError(msg, code="batch_cancelled"))

    async def _fetch(self, number: int, job: Batch, *, anew: bool = False) -> None:
        """Bring the answers of a round to disk. `anew`: also those that are there; they stay where there are no others.

        Raises:
            DecodeError: what came holds no answer; nothing of it is kept.
        """
        paths = [self._answers_at(number, place) for place in range(len(job.files) + bool(job.answers))]
        for path, name in zip(paths, job.files, strict=False):
            if anew or not path.exists():
                await self._download(job, name, path)
        if job.answers:
            with whole_file(paths[-1]) as file:
                file.writelines(each + b"\n" for each in job.answers)
        if (start := _something_else(paths)) is not None:
            for path in paths:
                path.unlink()
            msg = f"what came in the place of the answers of the batch job {job.id} holds none: it begins {start!r}"
            raise DecodeError(msg)
        self._rounds[number] |= {"files": len(paths), "checksums": [checksum_of(path) for path in paths]}

    async def _download(self, job: Batch, name: str, path: Path) -> None:
        work = self._work
        with whole_file(path) as file:
            try:
                await work.embedder.ask(work.api.content(name), bool, work.tally, seconds=LONG, into=file)
            except NotFoundError as error:
                if name not in self._missed:  # it may not be there yet
                    self._missed.add(name)
                    error.retryable = True
                    raise
                self._tell("failing", job=job.id, message=str(error))  # it has expired there: its rows are sent again
                _refill(file, path)

    def _job_failed(self, job: Batch) -> None:
        """A job that was not run at all: too many tokens wait there, or its file is not what the provider takes."""
        refusal = job.refusal or job_failure("the batch job failed, and nothing says why")
        self._work.created = max(0, self._work.created - 1)
        learned = self._work.embedder.adopt(refusal)
        error = self._work.embedder.judged(refusal)
        if isinstance(error, RateLimitError):
            self._renew(keep_file=True)
            self._full(error, halve=True)
        elif isinstance(error, TooLargeError):
            self._halve(error)
        else:
            self._renew(keep_file=False)
            if not learned:
                raise error
            self._tell("again", message=error.message)

    def _renew(self, *, keep_file: bool) -> None:
        """The same lines in another job."""
        old = self._rounds[-1]
        self._rounds[-1] = {"key": self._work.new_key(), **({"file": old["file"]} if keep_file else {})}
        self._keep()

    def _full(self, error: RateLimitError, *, halve: bool) -> None:
        """The provider takes no further job at present."""
        work = self._work
        self._waits_since = work.now() if self._waits_since is None else self._waits_since
        if work.now() - self._waits_since > FULL:
            self._failures = PATIENT
            raise error
        if halve and not work.created and work.halvings < HALVINGS and len(self._lines(self._last)) > 1:
            work.halvings += 1
            self._halve(error)
        work.full_until = work.now() + max(error.retry_after or 0.0, work.caps.full)
        self.due = work.full_until
        self._tell("waiting", message=str(error))

    def _halve(self, error: ApiError) -> None:
        """The job alone is too large: its lines go out in smaller ones."""
        lines = len(self._lines(self._last))
        if lines == 1:
            raise error
        self._work.most = max(1, min(self._work.most, lines // 2))
        for kind in ("jsonl", "lines"):
            self._path(kind, self._last).unlink(missing_ok=True)
        self._rounds.pop()
        self._keep()

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Read all that has come back, and send what is missing, or be ready."""
        answers = await self._collected()
        verdict = answers.verdict(cuts=self._work.cuts is not None)
        if not verdict.settled:
            self._begin(verdict, answers)
            return
        failed = verdict.failed
        if failed and not answers.done.any() and not about_texts(list(failed.values())):
            self._record["given_up"] = len(self._rounds)  # the next run tries again
            self._keep()
            answers.close()
            self._failures = PATIENT
            raise self._signed(next(iter(failed.values())))
        self._answers, self._failed, self.ready = answers, failed, True
        strange = f"{answers.strange} lines of answers are none of ours" if answers.strange else ""
        self._tell("ready", message=strange)

    async def _collected(self) -> Answers:
        if self._answers is not None:
            self._answers.close()
        work = self._work
        answers = Answers(self._count, self._path("rows"), work.options[1].dtype, work.reader())
        for number, each in enumerate(self._rounds):
            await self._present(number, each)
            answers.begin(self._lines(number), counted=number >= self._record.get("given_up", 0))
            for place in range(each["files"]):
                await self._take(self._answers_at(number, place), answers)
            if answers.unreadable and answers.lacking and not each.get("twice"):
                answers.close()
                await self._fetch(number, await self._described(each), anew=True)
                each["twice"] = True
                self._keep()
                return await self._collected()
            answers.end()
        return answers

    async def _present(self, number: int, each: dict[str, Any]) -> None:
        """Fetch answers anew that are no longer on disk as they came."""
        paths = [self._answers_at(number, place) for place in range(each["files"])]
        known = each.get("checksums", [None] * len(paths))
        damaged = [
            path
            for path, sum_ in zip(paths, known, strict=True)
            if path.exists() and sum_ not in (None, checksum_of(path))
        ]
        for path in damaged:
            path.unlink()
        if not all(path.exists() for path in paths):
            await self._fetch(number, await self._described(each))
            self._keep()

    async def _described(self, each: dict[str, Any]) -> Batch:
        """The job of a round, as it stands now."""
        return await self._ask(self._work.api.poll(each["job"]), self._work.api.batch)

    async def _take(self, path: Path, answers: Answers) -> None:
        import anyio.lowlevel

        api, read = self._work.api, 0
        for line in answer_lines(path):
            read += len(line)
            if read > PIECE:
                await anyio.lowlevel.checkpoint()
                read = 0
            try:
                answers.take(api.answer(line))
            except DecodeError as error:
                answers.spoiled(error)

    def _begin(self, verdict: Verdict, answers: Answers) -> None:
        """Write down the lines of the next job: what has to be sent again first, then what was never sent."""
        work, lines = self._work, list(verdict.again)
        for first, stop in verdict.unsent:
            if len(lines) >= work.most:
                break
            (texts,) = read_texts(self._path("texts"), [(first, stop)])
            lines += lines_of(texts, work.line_limits, work.embedder.count_tokens, work.longest, first)
        answers.close()
        again = f"{len(verdict.again)} lines are sent again" if verdict.again else ""
        lines = self._write(sorted(lines[: work.most]), answers, len(self._rounds))
        write_lines(self._path("lines", len(self._rounds)), lines)
        self._rounds.append({"key": work.new_key()})
        self._keep()
        if again:
            self._tell("again", message=again)

    def _write(self, lines: Sequence[Line], answers: Answers | None, number: int | None = None) -> list[Line]:
        """Write the file of a job, and return the lines of these that it has room for."""
        work, api, size = self._work, self._work.api, 0
        kept: list[Line] = []
        with whole_file(self._path("jsonl", self._last if number is None else number)) as file:
            for line, texts in zip(lines, read_texts(self._path("texts"), lines), strict=True):
                made = api.line(key_of(line), self._cut(texts, line, answers), work.options[0])
                size += len(made) + 1
                if size > work.caps.bytes and kept:
                    break
                file.write(made + b"\n")
                kept.append(line)
        return kept

    def _cut(self, texts: list[str], line: Line, answers: Answers | None) -> list[str]:
        """The texts, those that are too long cut. Counts are estimates: the first time much is left to the provider."""
        most, count = self._work.cuts, self._work.embedder.count_tokens
        if most is None:
            return texts
        return [
            head(text, most if answers is not None and answers.too_long(line[0] + place) else SURE * most, count)
            for place, text in enumerate(texts)
        ]

    # --- rows --------------------------------------------------------------------------------------------------------

    def part(self, first: int, stop: int, width: int) -> Embeddings:
        """Some rows of a chunk that is ready, by their place in it. `width`: of rows without a vector."""
        import numpy as np

        answers, work = self._answers, self._work
        of = self._of[first:stop]
        rows = None if answers is None else answers.rows
        failures = {row - first: error for row, error in self._faults.items() if first <= row < stop}
        failures |= {
            row: self._signed(self._failed[place])
            for row, place in enumerate(of.tolist())
            if self._failed and place in self._failed
        }
        if rows is None:
            vectors = missing_rows(stop - first, width, work.options[1].dtype)
        else:
            vectors = np.asarray(rows)[of.clip(0)]
            if failures:
                vectors[list(failures)] = missing_value(vectors)
        failures = {row: error.at(row) for row, error in sorted(failures.items())}
        tokens = answers.tokens if answers is not None else None
        if tokens is not None:  # each part has its share, so that they add up
            tokens = tokens * stop // self.rows - tokens * first // self.rows
        model = (answers.model if answers is not None else "") or work.embedder.model
        return Embeddings(vectors, model, Usage(tokens), failures, self.start + first, work.options[1].dtype)

    def close(self) -> None:
        """Let go of the rows; the answers stay on disk."""
        if self._answers is not None:
            self._answers.close()
            self._answers = None

    # --- what it is made of ------------------------------------------------------------------------------------------

    @property
    def _rounds(self) -> list[dict[str, Any]]:
        rounds: list[dict[str, Any]] = self._record["rounds"]
        return rounds

    @property
    def _last(self) -> int:
        return len(self._rounds) - 1

    def _lines(self, number: int) -> list[Line]:
        path = self._path("lines", number)
        try:
            return read_lines(path)
        except FileNotFoundError:
            msg = f"{path} is missing: without it nobody knows what the batch job holds; begin anew"
            raise ConfigError(msg) from None

    def _path(self, kind: str, number: int | None = None) -> Path:
        return self._work.folder / f"{name_of(self.number)}{'' if number is None else f'-{number}'}.{kind}"

    def _answers_at(self, number: int, place: int) -> Path:
        return self._path(f"{place}.answers", number)

    async def _ask(self, request: Request, read: Callable[[Response], T], tries: int | None = None) -> T:
        return await self._work.ask(request, read, tries)

    def _keep(self) -> None:
        self._work.store.put(self.number, deepcopy(self._record))  # it may be kept as it is

    def _wait(self, seconds: float) -> None:
        self.due = self._work.now() + seconds

    def _signed(self, error: EmbedkitError) -> EmbedkitError:
        if isinstance(error, ApiError):
            error.provider = error.provider or self._work.embedder.provider
            error.model = error.model or self._work.embedder.model
        return error

    def _tell(self, state: str, **more: Any) -> None:
        with suppress(Exception):  # of an observer; it is not to end the job
            self._work.tell(BatchEvent(chunk=self.number, start=self.start, rows=self.rows, state=state, **more))


def _refill(file: BinaryIO, path: Path) -> None:
    """What an earlier download has left, in the place of what came now."""
    file.seek(0)
    file.truncate()
    if path.exists():
        with path.open("rb") as before:
            shutil.copyfileobj(before, file)


def _something_else(paths: Sequence[Path]) -> bytes | None:
    """How files begin that hold something, but no answer, not even a damaged one; None: there is one, or nothing."""
    start: bytes | None = None
    for path in paths:
        for line in answer_lines(path):
            if names_a_line(line):
                return None
            start = start or line[:80]
    return start


def unfinished_job(record: dict[str, Any]) -> str:
    """The id of the job that a record tells of and that is not known to be finished; empty: there is none."""
    last: dict[str, Any] = record["rounds"][-1] if record["rounds"] else {}
    return "" if last.get("fetched") else str(last.get("job", ""))


def lost_key(record: dict[str, Any]) -> str:
    """The key of a job that may have been created, but whose id is not known; empty: there is none."""
    last: dict[str, Any] = record["rounds"][-1] if record["rounds"] else {}
    return str(last["key"]) if last.get("asked") and "job" not in last else ""


def name_of(number: int) -> str:
    """What the names of a chunk's files begin with."""
    return f"batch-{number:06d}"
