"""The process of the emulator: moto's server, whose Batch hands its jobs to our scheduler."""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend
from moto.batch.responses import BatchResponse
from moto.logs.models import LogsBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from labkit.testing.batch import rules
from labkit.testing.batch.jobs import Job, Scheduler
from labkit.testing.batch.server import CONTROL

_GROUP = "/aws/batch/job"
_PAGE = 100  # jobs of one answer of ListJobs


class Emulator:
    """Scheduler, faults and counts of one server."""

    def __init__(self, url: str) -> None:
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        region = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
        self.scheduler = Scheduler(
            float(os.environ["LABKIT_BATCH_VCPUS"]),
            json.loads(os.environ["LABKIT_BATCH_IMAGES"]),
            {"AWS_ENDPOINT_URL": url, **keys, **region},
            self._log,
        )
        self.logs: LogsBackend | None = None
        self.queues: dict[str, str] = {}  # job -> its queue's ARN
        self.definitions: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.faults: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def _log(self, stream: str, lines: list[tuple[int, str]]) -> None:
        if self.logs is None:
            return
        with self._lock:
            self.logs.ensure_log_group(_GROUP)
            self.logs.ensure_log_stream(_GROUP, stream)
            events = [{"timestamp": at, "message": text} for at, text in lines]
            self.logs.put_log_events(_GROUP, stream, events)

    def fault_of(self, operation: str) -> dict[str, Any] | None:
        """Count a call, and return what goes wrong with it."""
        with self._lock:
            self.calls[operation] += 1
            for fault in self.faults:
                if fault["operation"].lower() == operation and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return None

    def control(self, what: str, data: dict[str, Any]) -> dict[str, Any]:
        """Do what a test asks for."""
        if what == "reclaim":
            job = self.scheduler.jobs[data["job"]]
            return {"ran": self.scheduler.reclaim(job, warning=data["warning"])}
        if what == "fail":
            with self._lock:
                self.faults.append(data)
            return {}
        return dict(self.calls)


def _container(definition: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return a definition's container with a request's overrides, as Batch merges them."""
    merged = dict(definition.container_properties or {})
    merged |= {
        k: v for k, v in overrides.items() if k not in ("environment", "resourceRequirements")
    }
    environment = {one["name"]: one["value"] for one in merged.get("environment") or ()}
    environment |= {one["name"]: one["value"] for one in overrides.get("environment") or ()}
    merged["environment"] = [{"name": k, "value": v} for k, v in environment.items()]
    asked = {one["type"]: one["value"] for one in merged.get("resourceRequirements") or ()}
    asked |= {one["type"]: one["value"] for one in overrides.get("resourceRequirements") or ()}
    merged["vcpus"] = asked.get("VCPU") or merged.get("vcpus") or 1
    return merged


def install(emulator: Emulator) -> None:
    """Put the scheduler in the place of moto's own jobs."""
    scheduler = emulator.scheduler

    def submit(self: BatchResponse) -> str:
        backend, request = self.batch_backend, json.loads(self.body)
        emulator.logs = backend.logs_backend
        if text := rules.refusal(request, scheduler.jobs):
            raise ClientException(text)
        definition = backend.get_job_definition(request["jobDefinition"])
        if definition is None:
            raise ClientException(f"Job definition {request['jobDefinition']} does not exist")
        queue = backend.get_job_queue(request["jobQueue"])
        if queue is None:
            raise ClientException(f"Job queue {request['jobQueue']} does not exist")
        if queue.state != "ENABLED":
            raise ClientException(f"Job queue {request['jobQueue']} is disabled")
        for name in ("retryStrategy", "timeout"):
            kept = getattr(definition, {"retryStrategy": "retry_strategy"}.get(name, name), None)
            request[name] = request.get(name) or kept
        job = Job(request, _container(definition, request.get("containerOverrides") or {}))
        for one in (job, *job.children):
            emulator.queues[one.id], emulator.definitions[one.id] = queue.arn, definition.arn
        scheduler.add(job)
        return json.dumps({"jobId": job.id, "jobName": job.name, "jobArn": _arn(self, job)})

    def describe(self: BatchResponse) -> str:
        ids = json.loads(self.body).get("jobs") or []
        if len(ids) > rules.MOST_DESCRIBED:
            raise ClientException(f"{rules.MOST_DESCRIBED} jobs at most can be described")
        jobs = [scheduler.jobs[one] for one in ids if one in scheduler.jobs]
        return json.dumps({"jobs": [_whole(self, job, job.details()) for job in jobs]})

    def list_jobs(self: BatchResponse) -> str:
        request = json.loads(self.body)
        if parent := request.get("arrayJobId"):
            jobs = scheduler.jobs[parent].children if parent in scheduler.jobs else []
        else:
            queue = self.batch_backend.get_job_queue(request.get("jobQueue", ""))
            if queue is None:
                raise ClientException(f"Job queue {request.get('jobQueue')} does not exist")
            arn = queue.arn
            jobs = [
                job
                for job in list(scheduler.jobs.values())
                if job.parent is None and emulator.queues[job.id] == arn
            ]
        filters = request.get("filters") or []
        for one in filters:
            if one["name"] != "JOB_NAME":
                raise ClientException("The emulator knows the filter JOB_NAME alone")
            jobs = [job for job in jobs if any(rules.matches(v, job.name) for v in one["values"])]
        if not filters:
            state = request.get("jobStatus", "RUNNING")
            jobs = [job for job in jobs if job.state == state]
        start = int(request.get("nextToken") or 0)
        size = min(int(request.get("maxResults") or _PAGE), _PAGE)
        told: dict[str, Any] = {
            "jobSummaryList": [
                _whole(self, job, job.summary()) for job in jobs[start : start + size]
            ]
        }
        if start + size < len(jobs):
            told["nextToken"] = str(start + size)
        return json.dumps(told)

    def end(self: BatchResponse, *, started: bool) -> str:
        request = json.loads(self.body)
        job = scheduler.jobs.get(request["jobId"])
        if job is not None:
            scheduler.end(job, request["reason"], started=started)
        return "{}"

    def _whole(self: BatchResponse, job: Job, told: dict[str, Any]) -> dict[str, Any]:
        told |= {"jobArn": _arn(self, job), "jobDefinition": emulator.definitions[job.id]}
        return told | {"jobQueue": emulator.queues[job.id]}

    def _arn(self: BatchResponse, job: Job) -> str:
        backend: BatchBackend = self.batch_backend
        return f"arn:aws:batch:{backend.region_name}:{backend.account_id}:job/{job.id}"

    BatchResponse.submitjob = submit  # type: ignore[method-assign]
    BatchResponse.describejobs = describe  # type: ignore[method-assign]
    BatchResponse.listjobs = list_jobs  # type: ignore[method-assign]
    BatchResponse.terminatejob = lambda self: end(self, started=True)  # type: ignore[method-assign]
    BatchResponse.canceljob = lambda self: end(self, started=False)  # type: ignore[method-assign]


class Application:
    """Faults and the test's control, in front of moto."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            told = self._emulator.control(path.rpartition("/")[2], json.loads(body))
            return _answer(start_response, "200 OK", told)
        # The paths of Batch's own operations: other services have a host or an action instead.
        operation = path.removeprefix("/v1/") if path.startswith("/v1/") else ""
        fault = self._emulator.fault_of(operation) if operation else None
        if fault is None:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        if fault["done"]:
            for _ in self._moto(environ, lambda *_: None):
                pass
        headers = [("x-amzn-errortype", fault["code"])]
        text = {"message": "a fault of the test's"}
        return _answer(start_response, f"{fault['status']} Fault", text, headers)


def _answer(
    start_response: Callable[..., Any],
    status: str,
    data: dict[str, Any],
    headers: list[tuple[str, str]] | None = None,
) -> list[bytes]:
    content = json.dumps(data).encode()
    told = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(status, [*told, *(headers or [])])
    return [content]


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", "--host", required=True)
    parser.add_argument("-p", "--port", type=int, required=True)
    options = parser.parse_args()
    emulator = Emulator(f"http://{options.host}:{options.port}")
    install(emulator)
    server = make_server(options.host, options.port, Application(emulator), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
