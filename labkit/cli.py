"""The command ``labkit``: jobs from a terminal, the same as from a notebook."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from labkit.base.problems import LabkitError, RefusedError
from labkit.base.units import format_size
from labkit.environments import cli as environments
from labkit.jobs import jobfile, submission
from labkit.jobs.job import Job, jobs, open_job
from labkit.jobs.model import State, parse_time
from labkit.jobs.notebook import text
from labkit.jobs.runs import gc
from labkit.jobs.runs.index import Index
from labkit.storage import cli as data

SUCCESS, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
_EPILOG = """\
exit codes: 0 well; 1 the job has failed, or something could not be done; 2 refused, nothing was
started; 130 interrupted (the job goes on)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = lambda message, *_, **__: print(f"Warning: {message}", file=sys.stderr)
    try:
        return int(arguments.run(arguments))
    except RefusedError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except (LabkitError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as interrupt:
        print(interrupt or "Interrupted; jobs go on.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return SUCCESS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="labkit",
        description="Send jobs to this machine or the cluster, and see what became of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    for name, run, about in (
        ("submit", _submit, "submit a job file; the same work is never done twice"),
        ("plan", _plan, "show what a submit would do, and start nothing"),
    ):
        added = command(name, run, about)
        added.add_argument("file", help="job file (.yaml or .json)")
        added.add_argument("--backend", help="local, slurm or batch, instead of the file's")
        _option(added)
        if name == "submit":
            added.add_argument("--wait", action="store_true", help="wait for its end")
            added.add_argument(
                "--rerun", action="store_true", help="run it again where it is finished"
            )

    added = command("import", _import, "submit a message of Cell Painting Batch, or a DCP job file")
    added.add_argument("file", type=Path, help="JSON file")
    added.add_argument("--bucket", required=True, help="the bucket whose keys it names")
    added.add_argument("--dcp", action="store_true", help="it is Distributed-CellProfiler's")
    added.add_argument("--backend", help="local, slurm or batch")
    _option(added)

    added = command("jobs", _jobs, "list my jobs, the newest first")
    added.add_argument("-n", "--limit", type=int, default=20, help="how many (20)")
    added.add_argument("--json", action="store_true", help="for programs")

    added = _named(command("show", _show, "show a job: state, progress, failures"))
    added.add_argument("-w", "--watch", action="store_true", help="until it has ended")
    added.add_argument("--json", action="store_true", help="for programs")

    added = _named(command("logs", _logs, "show the end of a task's log"))
    added.add_argument("key", nargs="?", help="task; else the first that failed, or runs")
    added.add_argument("--stage", help="stage of the task")
    added.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")
    added.add_argument("-n", "--lines", type=int, default=50, help="how many lines (50)")

    _named(command("cancel", _cancel, "end a job; what has succeeded stays"))

    added = _named(command("retry", _retry, "run again only what failed or was cancelled"))
    added.add_argument("--memory", help='"x2" or a size')
    added.add_argument("--backend", help="another backend than before")
    _option(added)
    added.add_argument("--wait", action="store_true", help="wait for its end")

    added = _named(command("results", _results, "list results, or write a table to a file"))
    added.add_argument("result", nargs="?", help='table ("Nuclei") or files ("*.csv")')
    added.add_argument("--to", type=Path, help="write there: .csv or .parquet")

    added = command("gc", _gc, "make room: show what could go; --yes deletes it")
    added.add_argument("name", nargs="*", help="jobs; else all that have ended")
    added.add_argument("--older-than", metavar="TIME", default="0", help='e.g. "30d"')
    added.add_argument("--all", action="store_true", help="whole runs, with their results")
    added.add_argument("--yes", action="store_true", help="delete it")

    environments.add(commands)
    data.add(commands)
    return parser


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", help="name of the job (its start is enough), or its run folder")
    return parser


def _option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the submit, e.g. -o memory=8GB -o slurm_partition=main",
    )


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for given in arguments.option:
        name, equals, value = given.partition("=")
        if not equals:
            raise LabkitError(f"-o {given}: write it as NAME=VALUE.")
        options[name] = _number(value)
    return options


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _submit(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    if arguments.rerun:
        options["rerun"] = True
    job = jobfile.load(arguments.file).submit(arguments.backend, **options)
    return _submitted(job, arguments.wait)


def _import(arguments: argparse.Namespace) -> int:
    from labkit.workflows.cellprofiler.requests import import_cpb, import_dcp

    if arguments.dcp:
        requests = [import_dcp(arguments.file, arguments.bucket)]
    else:
        requests = import_cpb(arguments.file.read_text(encoding="utf-8"), arguments.bucket)
    options = _options(arguments)
    for request in requests:
        print(request.submit(arguments.backend, **options))
    return SUCCESS


def _submitted(job: Job, wait: bool) -> int:
    if not wait:
        print(job)
        return SUCCESS
    print(f"{job.name}\n{job.path}")
    return _end(job)


def _end(job: Job) -> int:
    job.wait()
    print(job)
    return SUCCESS if job.state is State.SUCCEEDED else FAILED


def _plan(arguments: argparse.Namespace) -> int:
    print(jobfile.load(arguments.file).plan(arguments.backend, **_options(arguments)))
    return SUCCESS


def _jobs(arguments: argparse.Namespace) -> int:
    listed = jobs(arguments.limit)
    print(json.dumps([_plain(job) for job in listed], indent=2) if arguments.json else listed)
    return SUCCESS


def _show(arguments: argparse.Namespace) -> int:
    job = open_job(arguments.name)
    if arguments.watch:
        return _end(job)
    print(json.dumps(_plain(job), indent=2) if arguments.json else text.card(job))
    return SUCCESS


def _plain(job: Job) -> dict[str, Any]:
    snapshot = job.refresh()
    return {
        "name": job.name,
        "key": job.key,
        "path": str(job.path),
        "backend": job.backend,
        "state": snapshot.state,
        "known": snapshot.known,
        "text": snapshot.text,
        "tasks": {state.value: snapshot.count(state) for state in State},
        "units": snapshot.units,
        "units_done": snapshot.units_done,
        "attempts": snapshot.attempts,
        "cpu_seconds": round(snapshot.cpu_seconds, 3),
        "peak_memory": snapshot.peak_memory,
        "created": job.run.manifest.created,
    }


def _logs(arguments: argparse.Namespace) -> int:
    job = open_job(arguments.name)
    if not arguments.follow:
        print(job.logs(arguments.key, stage=arguments.stage, lines=arguments.lines))
        return SUCCESS
    for line in job.follow(arguments.key, stage=arguments.stage):
        print(line, flush=True)
    return SUCCESS


def _cancel(arguments: argparse.Namespace) -> int:
    job = open_job(arguments.name).cancel()
    deadline = time.monotonic() + 5
    while not job.state.final and time.monotonic() < deadline:
        time.sleep(0.1)
    print(job)
    return SUCCESS


def _retry(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    if arguments.memory:
        options["memory"] = arguments.memory
    job = open_job(arguments.name).retry(arguments.backend, **options)
    return _submitted(job, arguments.wait)


def _results(arguments: argparse.Namespace) -> int:
    table = open_job(arguments.name).results(arguments.result)
    if arguments.to is None:
        print(table.to_string(index=False))
    elif arguments.to.suffix == ".parquet":
        table.to_parquet(arguments.to)
    elif arguments.to.suffix == ".csv":
        table.to_csv(arguments.to, index=False)
    else:
        raise LabkitError(f"--to {arguments.to}: the name must end in .csv or .parquet.")
    return SUCCESS


def _gc(arguments: argparse.Namespace) -> int:
    age = timedelta(0) if arguments.older_than == "0" else parse_time(arguments.older_than)
    before = (datetime.now(UTC) - (age or timedelta(0))).isoformat()
    index = Index()
    runs = [index.find(name) for name in arguments.name] if arguments.name else index.runs()
    total = 0
    for run in runs:
        state = open_job(run).refresh()
        if not (state.known and state.state.final) or run.manifest.created > before:
            continue
        garbage = gc.garbage(run, whole=arguments.all)
        if not garbage.paths:
            continue
        total += garbage.size
        print(f"{format_size(garbage.size):>10}  {run.path}{'' if arguments.all else '/attempts'}")
        if arguments.yes:
            if arguments.all:
                submission.forget(run)
            garbage.remove()
    if arguments.yes:
        print(f"{format_size(total)} freed.")
    else:
        print(f"{format_size(total)} could go: --yes deletes it. Results stay unless --all.")
    return SUCCESS


if __name__ == "__main__":
    raise SystemExit(main())
