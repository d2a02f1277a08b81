"""The lab file's section ``batch``: what `labhub check` and `labhub doctor` see of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from hub.environments import build
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from hub.targets import Finding
from labkit.base.problems import Problem

_SOMEBODY = "labhub-doctor"  # nothing is stored below its prefix


def problems(settings: Settings, paths: Paths) -> Iterator[Problem]:
    """Yield what no submit could use, and what names nothing of this portal; AWS is not asked.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the environments are.
    """
    if settings.batch is None:
        return
    from labkit.jobs.backends.batch.options import read

    for problem in read(settings.batch.options(_SOMEBODY))[1]:
        yield replace(problem, where=f"batch.{problem.where.removeprefix('batch_')}", hint="")
    for name in settings.batch.images:
        if name != "worker" and not (build.exists(name) or (paths.envs / name).is_dir()):
            hint = f"name one of images/, or put your own at {paths.envs / name}"
            text = f"there is no environment {name!r}, so no job can ask for it"
            yield Problem(f"batch.images.{name}", text, hint, warning=True)
    if "worker" not in settings.batch.images:
        text = "commands without an environment are refused on AWS Batch"
        hint = "name the image of images/worker as `worker`"
        yield Problem("batch.images", text, hint, warning=True)
    for folder in settings.batch.mounted:
        if not folder.is_dir():
            text = f"{folder} is not on this machine: nobody can name inputs there"
            yield Problem("batch.mounted", text, "mount it, or remove it", warning=True)


def finding(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001 - as every look's
    """Ask AWS for queue and bucket, with the credentials of whoever asks."""
    if settings.batch is None:
        return Finding("AWS Batch", "not set up: the lab file has no section batch")
    from labkit.jobs.backends.batch.options import read
    from labkit.jobs.backends.batch.reach import reach_problems
    from labkit.storage.client import asking, client
    from labkit.storage.errors import StorageError

    with _environment(settings.batch.variables(_SOMEBODY)):
        chosen, problems = read({})
        try:
            # Asked first: without credentials nothing is known of the rest.
            with asking("AWS"):
                client("sts").get_caller_identity()
        except StorageError as error:
            text = f"were not asked for: {error}"
            hint = "run doctor with AWS_PROFILE, or as a role that may look"
            problem = Problem("AWS Batch", text, hint, warning=True)
            return Finding("AWS Batch", "not asked", (problem,))
        if chosen is not None:
            problems += reach_problems(chosen)
    detail = f"queue {settings.batch.queue}, {settings.batch.folder}"
    return Finding("AWS Batch", detail, tuple(problems))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
