"""Two people's names, and those of their servers, never make one name."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from hub.cli.logs import log_file
from hub.labfile.batch import Batch
from hub.sandbox.instance import sandbox_key
from hub.state.paths import Paths
from labkit.jobs.backends.batch.requests import Array
from labkit.jobs.plan import Plan
from labkit.jobs.runs.manifest import Manifest, submission_name

USERS = ["ada", "ada-", "ada--x", "ada-x", "ada_x", "ada--", "ada+x", "ada.log", "a%2Bb"]
SERVERS = ["", "x", "-x", "x--y", "y", "log"]


def test_logs(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    places = list(itertools.product(USERS, SERVERS))
    logs = {paths.server_log(user, server) for user, server in places}
    assert len(logs) == len(places)
    assert {log.parent for log in logs} == {tmp_path / "log" / "servers"}
    assert paths.server_log("ada--x") != paths.server_log("ada", "x")


def test_a_persons_logs_are_theirs_alone(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    (tmp_path / "log" / "servers").mkdir(parents=True)
    assert paths.server_logs("nobody") == []
    for user, server in itertools.product(USERS, SERVERS):
        paths.server_log(user, server).touch()
    full = paths.server_log("ada").with_name("ada.log.1")
    full.touch()
    own = {paths.server_log("ada", server) for server in SERVERS} | {full}
    assert set(paths.server_logs("ada")) == own


def test_an_earlier_versions_log_is_still_shown(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    earlier = tmp_path / "log" / "servers" / "ada--x.log"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert log_file(paths, "ada/x") == earlier
    paths.server_log("ada", "x").touch()
    assert log_file(paths, "ada/x") == paths.server_log("ada", "x")


def test_submissions_and_the_jobs_of_batch() -> None:
    """SLURM's jobs, Batch's and what is in S3 have names made of a submission's.

    Twenty people run the same cell of a course within the same second: in pods they all are
    ``jovyan`` in ``/home/jovyan``.
    """
    work = Plan(name="course", tool="command", stages=())
    names = set()
    places = [Path("/home/jovyan/runs/a"), Path("/home/jovyan/runs/b")]
    people = list(itertools.product(("jovyan", "ada", "ad"), ("jupyter-ada", "jupyter-bob", "a")))
    for (user, host), place, number in itertools.product(people, places, (1, 11)):
        manifest = replace(Manifest.of(work, "sha256:" + "0" * 64), user=user, host=host)
        names.add(submission_name(manifest, place, number))
    assert len(names) == len(people) * len(places) * 2
    arrays = [Array(stage, start, 10) for stage, start in (("a", 0), ("a", 10), ("a-0", 10))]
    assert len({array.name(name) for array in arrays for name in names}) == 3 * len(names)


def test_prefixes_of_batch_in_s3() -> None:
    people = ["ada", "ada/x", "ada%2Fx", "ada x", "ada@lab.org", "..", "ada/..", "Ada"]
    batch = Batch(queue="q", folder="s3://lab/runs", images={}, role="")
    folders = [str(batch.options(person)["folder"]) for person in people]
    assert len(set(folders)) == len(people)
    assert all(folder.count("/") == "s3://lab/runs/ada".count("/") for folder in folders)


def test_sandboxes() -> None:
    """Cgroups, network namespaces and folders are named by numbers: account and server."""
    keys = {sandbox_key(uid, server) for uid in (1000, 10001, 100) for server in SERVERS}
    assert len(keys) == 3 * len(SERVERS)
