"""The batch-job APIs of four providers, in memory, composed from their pages. Each refuses what its pages do not allow.

`Server.answer` is a handler for a `FakeExchange`. What is set on a server makes it misbehave: see its attributes.
"""

from __future__ import annotations

import base64
import json
import random
import re
from urllib.parse import parse_qs, urlsplit

from embedkit.testing import FakeEmbedder, response

vector = FakeEmbedder(8).vector


def vector_as_sent(text, encoding, width):
    made = vector(text, width)
    return base64.b64encode(made.tobytes()).decode() if encoding == "base64" else [float(each) for each in made]


class Refused(Exception):
    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.answer = response({"error": {"message": message, "code": code, "type": code}}, status)


class Server:
    """One provider.

    Attributes:
        polls: how often a job is asked for before it is final.
        refuse: text → (status, message) of the line that holds it, or None.
        lose: (job's number, key) → True where the line gets no answer at all.
        ends: the state in which jobs end, one after the other; the last of them for all others.
        spoil: lines of a file of answers → the lines that are there instead.
        on_create: called with the number of a create; what it raises refuses it.
        jobs, files: all there are, by id, in the order in which they were made.
        log: (method, path) of every request.
    """

    model = ""
    ok = "completed"
    running = "in_progress"

    def __init__(self):
        self.polls = 1
        self.refuse = lambda text: None
        self.lose = lambda job, key: False
        self.ends = [self.ok]
        self.spoil = lambda lines: lines
        self.on_create = lambda number: None
        self.fails = lambda number, lines: None
        self.jobs, self.files, self.log = {}, {}, []
        self.most_texts = 0
        self.requests = []

    # --- what a handler of a FakeExchange does ---

    def answer(self, request):
        parts = urlsplit(request.url)
        self.log.append((request.method, parts.path))
        self.requests.append(request)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        try:
            return self.route(request, parts.path, query)
        except Refused as refusal:
            return refusal.answer

    def texts_run(self):
        """How often each text was run by a job."""
        found = {}
        for job in self.jobs.values():
            for line in job["lines"] if job["ran"] else ():
                for text in self.texts_of(line):
                    found[text] = found.get(text, 0) + 1
        return found

    # --- files and jobs ---

    def keep_file(self, content):
        name = self.file_name(len(self.files))
        self.files[name] = content
        return name

    def file_name(self, number):
        return f"file-{number}"

    def lines_of(self, name):
        if name not in self.files:
            raise Refused(404, f"no such file: {name}")
        return [json.loads(line) for line in self.files[name].splitlines()]

    def multipart(self, request):
        assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        parts = request.body.split(b"--" + boundary)
        assert parts[0] == b""
        assert parts[-1] == b"--\r\n"
        fields = {}
        for part in parts[1:-1]:
            head, _, body = part.partition(b"\r\n\r\n")
            fields[re.search(rb'name="(\w+)"', head)[1].decode()] = (head, body.removesuffix(b"\r\n"))
        assert fields["purpose"][1] == b"batch"
        assert b'.jsonl"' in fields["file"][0]
        return fields["file"][1]

    def new_job(self, lines, **more):
        number = len(self.jobs)
        self.on_create(number)
        keys = [self.key_of(line) for line in lines]
        assert len(set(keys)) == len(keys), "a key twice in one file"
        assert lines
        job = {"number": number, "lines": lines, "asked": 0, "ran": False, "stopped": False, "files": None, **more}
        self.jobs[self.job_name(number)] = job
        return self.job_name(number)

    def job_name(self, number):
        return f"batch_{number}"

    def state(self, job):
        if job["asked"] < self.polls and not job["stopped"]:
            return self.running
        return "cancelled" if job["stopped"] else self.ends[min(job["number"], len(self.ends) - 1)]

    def polled(self, name):
        if name not in self.jobs:
            raise Refused(404, f"no batch job {name}")
        job = self.jobs[name]
        job["asked"] += 1
        if self.state(job) != self.running and job["files"] is None:
            self.finish(job)
        return job

    def finish(self, job):
        failure = self.fails(job["number"], job["lines"])
        if failure is not None:
            job["failure"], job["files"] = failure, []
            return
        good, bad = [], []
        for line in job["lines"]:
            key = self.key_of(line)
            if self.lose(job["number"], key):
                if self.unanswered(key, job) is not None:
                    bad.append(self.unanswered(key, job))
                continue
            refused = next(filter(None, map(self.refuse, self.texts_of(line))), None)
            if refused is None:
                good.append(self.success(key, line, job))
            else:
                bad.append(self.failed(key, *refused))
        job["ran"] = True
        good, bad = [json.dumps(each) for each in good], [json.dumps(each) for each in bad]
        random.Random(job["number"]).shuffle(good)
        job["files"] = [
            self.keep_file("\n".join(self.spoil(lines)).encode()) if lines else None for lines in self.sorted(good, bad)
        ]

    def sorted(self, good, bad):
        return good, bad

    def body(self, texts, encoding=None, width=None):
        words = sum(len(text.split()) for text in texts)
        return {
            "object": "list", "model": self.model, "usage": {"prompt_tokens": words, "total_tokens": words},
            "data": [{"object": "embedding", "index": place, "embedding": vector_as_sent(text, encoding, width or 8)} for place, text in enumerate(texts)],
        }  # fmt: skip


class OpenAI(Server):
    """OpenAI; the others that have files and jobs like its own say what differs."""

    name, model, url = "openai", "text-embedding-3-small", "https://api.openai.com/v1"
    jobs_route, line_keys, window = "/batches", {"custom_id", "method", "url", "body"}, "24h"

    def key_of(self, line):
        return line["custom_id"]

    def texts_of(self, line):
        return line["body"].get("input") or [text for (text,) in line["body"]["inputs"]]

    def route(self, request, path, query):
        path = path.removeprefix("/v1")
        if (request.method, path) == ("POST", "/files"):
            return response({"id": self.keep_file(self.multipart(request)), "object": "file", "purpose": "batch"})
        if (request.method, path) == ("POST", self.jobs_route):
            name = self.create(json.loads(request.body))
            return response(self.shown(name, self.jobs[name]))
        if (request.method, path) == ("GET", self.jobs_route):
            return response(self.page(query))
        if found := re.fullmatch(rf"{self.jobs_route}/([^/]+)/cancel", path):
            self.jobs[found[1]]["stopped"] = True
            return response(self.shown(found[1], self.jobs[found[1]]))
        if found := re.fullmatch(rf"{self.jobs_route}/([^/]+)", path):
            return response(self.shown(found[1], self.polled(found[1])))
        if found := re.fullmatch(r"/files/([^/]+)/content", path):
            if found[1] not in self.files:
                raise Refused(404, "no such file")
            return response(self.files[found[1]])
        raise AssertionError(path)

    def create(self, body):
        assert body["endpoint"] == "/v1/embeddings"
        assert body["completion_window"] == self.window
        assert all(isinstance(value, str) for value in body["metadata"].values())
        lines = self.lines_of(body["input_file_id"])
        for line in lines:
            assert set(line) == self.line_keys
            self.check_line(line)
        return self.new_job(lines, metadata=body["metadata"], params=body.get("request_params", {}))

    def check_line(self, line):
        assert (line["method"], line["url"]) == ("POST", "/v1/embeddings")
        assert line["body"]["model"] == self.model

    def page(self, query):
        names, size = list(self.jobs)[::-1], 2
        start = names.index(query["after"]) + 1 if "after" in query else 0
        data = [self.shown(name, self.jobs[name]) for name in names[start : start + size]]
        return {"object": "list", "data": data, "has_more": start + size < len(names)}

    def shown(self, name, job):
        files = job["files"] or []
        state = "failed" if job.get("failure") else self.state(job)
        counts = {"total": len(job["lines"]), "completed": 0, "failed": 0}
        return {
            "id": name, "object": "batch", "endpoint": "/v1/embeddings", "status": state, "metadata": job["metadata"],
            "errors": {"object": "list", "data": [job["failure"]]} if job.get("failure") else None,
            "output_file_id": files[0] if files else None, "error_file_id": files[1] if files else None,
            "request_counts": counts, "created_at": 1_700_000_000,
        }  # fmt: skip

    def success(self, key, line, job):
        body = self.body(self.texts_of(line), line["body"].get("encoding_format"), line["body"].get("dimensions"))
        return {
            "id": "r",
            "custom_id": key,
            "response": {"status_code": 200, "request_id": "x", "body": body},
            "error": None,
        }

    def failed(self, key, status, message):
        body = {"error": {"message": message, "type": "invalid_request_error"}}
        return {"id": "r", "custom_id": key, "response": {"status_code": status, "body": body}, "error": None}

    def unanswered(self, key, job):
        code = "batch_expired" if self.state(job) == "expired" else "batch_cancelled"
        return {"id": "r", "custom_id": key, "response": None, "error": {"code": code, "message": "not run"}}


class Voyage(OpenAI):
    name, model, url = "voyage", "voyage-3.5", "https://api.voyageai.com/v1"
    line_keys, window = {"custom_id", "body"}, "12h"

    def check_line(self, line):
        assert set(line["body"]) == {"input"}

    def create(self, body):
        assert set(body["request_params"]) <= {"model", "input_type", "output_dimension", "output_dtype", "truncation"}
        assert body["request_params"]["model"] == self.model
        return super().create(body)

    def success(self, key, line, job):
        body = self.body(self.texts_of(line), None, job["params"].get("output_dimension"))
        del body["usage"]["prompt_tokens"]
        return {"batch_id": "b", "custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}

    def failed(self, key, status, message):
        return {
            "batch_id": "b",
            "custom_id": key,
            "response": {"status_code": status, "message": message},
            "error": None,
        }

    def shown(self, name, job):
        return {**super().shown(name, job), "created_at": "2026-11-19T02:46:44.5+00:00"}


class Mistral(OpenAI):
    name, model, url = "mistral", "mistral-embed", "https://api.mistral.ai/v1"
    jobs_route, line_keys = "/batch/jobs", {"custom_id", "body"}
    ok, running = "SUCCESS", "RUNNING"

    def create(self, body):
        assert body["endpoint"] == "/v1/embeddings"
        assert body["model"] == self.model
        (name,) = body["input_files"]
        lines = self.lines_of(name)
        for line in lines:
            assert set(line) == self.line_keys
            assert "model" not in line["body"]
        return self.new_job(lines, metadata=body["metadata"])

    def page(self, query):
        size, page = 2, int(query["page"])
        names = list(self.jobs)[::-1]
        data = [self.shown(name, self.jobs[name]) for name in names[page * size : (page + 1) * size]]
        return {"object": "list", "data": data, "total": len(names)}

    def state(self, job):
        return {"cancelled": "CANCELLED", "expired": "TIMEOUT_EXCEEDED", "failed": "FAILED"}.get(
            super().state(job), super().state(job)
        )

    def shown(self, name, job):
        files = job["files"] or []
        failure = job.get("failure")
        return {
            "id": name, "object": "batch", "status": "FAILED" if failure else self.state(job), "metadata": job["metadata"],
            "errors": [{"message": failure["message"], "count": 1}] if failure else [],
            "output_file": files[0] if files else None, "error_file": files[1] if files else None,
            "total_requests": len(job["lines"]), "completed_requests": 0, "failed_requests": 0,
        }  # fmt: skip

    def unanswered(self, key, job):
        return None


class Gemini(Server):
    name, model, url = "gemini", "gemini-embedding-001", "https://generativelanguage.googleapis.com/v1"
    ok, running = "BATCH_STATE_SUCCEEDED", "BATCH_STATE_RUNNING"
    inline = False

    def key_of(self, line):
        return line["key"]

    def texts_of(self, line):
        (part,) = line["request"]["content"]["parts"]
        return [part["text"]]

    def file_name(self, number):
        return f"files/f{number}"

    def job_name(self, number):
        return f"batches/b{number}"

    def route(self, request, path, query):  # noqa: PLR0911 (a route each)
        if path == "/upload/v1beta/files" and "upload_id" not in query:
            assert request.headers["x-goog-upload-command"] == "start"
            self.expects = int(request.headers["x-goog-upload-header-content-length"])
            place = request.url + "?upload_id=u1"
            return response({}, headers={"x-goog-upload-url": place})
        if path == "/upload/v1beta/files":
            assert request.headers["x-goog-upload-command"] == "upload, finalize"
            assert len(request.body) == self.expects
            return response({"file": {"name": self.keep_file(request.body)}})
        if path == f"/v1beta/models/{self.model}:asyncBatchEmbedContent":
            batch = json.loads(request.body)["batch"]
            assert set(batch) == {"displayName", "inputConfig"}
            lines = self.lines_of(batch["inputConfig"]["file_name"])
            assert all(set(line) == {"key", "request"} for line in lines)
            name = self.new_job(lines, display=batch["displayName"])
            return response(self.shown(name, self.jobs[name]))
        if path == "/v1beta/batches":
            names, size = list(self.jobs), 2
            start = int(query.get("pageToken", 0))
            page = {"operations": [self.shown(name, self.jobs[name]) for name in names[start : start + size]]}
            if start + size < len(names):
                page["nextPageToken"] = str(start + size)
            return response(page)
        if found := re.fullmatch(r"/v1beta/(batches/[^/:]+)(:cancel)?", path):
            if found[2]:
                self.jobs[found[1]]["stopped"] = True
                return response({})
            return response(self.shown(found[1], self.polled(found[1])))
        if found := re.fullmatch(r"/download/v1beta/(files/[^/:]+):download", path):
            assert query == {"alt": "media"}
            if found[1] not in self.files:
                raise Refused(404, "no such file")
            return response(self.files[found[1]])
        raise AssertionError(path)

    def state(self, job):
        words = {"cancelled": "BATCH_STATE_CANCELLED", "expired": "BATCH_STATE_EXPIRED", "failed": "BATCH_STATE_FAILED"}
        return words.get(super().state(job), super().state(job))

    def sorted(self, good, bad):
        return ([*good, *bad],)  # one file for both

    def shown(self, name, job):
        told = {"state": "BATCH_STATE_FAILED" if job.get("failure") else self.state(job), "displayName": job["display"]}
        told["batchStats"] = {"requestCount": str(len(job["lines"])), "pendingRequestCount": "0"}
        if job["files"] and job["files"][0]:
            if self.inline:
                lines = [json.loads(line) for line in self.files[job["files"][0]].splitlines()]
                items = [
                    {**{k: v for k, v in line.items() if k != "key"}, "metadata": {"key": line["key"]}}
                    for line in lines
                ]
                told["output"] = {"inlinedResponses": {"inlinedResponses": items}}
            else:
                told["output"] = {"responsesFile": job["files"][0]}
        found = {"name": name, "metadata": told, "done": told["state"] != self.running}
        if job.get("failure"):
            code = 8 if job["failure"]["code"] == "RESOURCE_EXHAUSTED" else 3  # of google.rpc
            found["error"] = {"code": code, "message": job["failure"]["message"]}
        return found

    def success(self, key, line, job):
        width = line["request"].get("outputDimensionality")
        (text,) = self.texts_of(line)
        return {
            "key": key,
            "response": {
                "embedding": {"values": vector_as_sent(text, None, width or 8)},
                "tokenCount": len(text.split()),
            },
        }

    def failed(self, key, status, message):
        return {"key": key, "error": {"code": 3 if status == 400 else 13, "message": message}}

    def unanswered(self, key, job):
        return None


SERVERS = [OpenAI, Voyage, Mistral, Gemini]
