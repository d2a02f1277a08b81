"""Inputs of jobs that lie in S3: found before, fetched on the node, the same as local ones."""

from __future__ import annotations

import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.base.problems import RefusedError
from labkit.base.remote import local_name
from labkit.jobs.model import State
from labkit.storage.entry import Entry
from labkit.storage.errors import NotFoundError, StorageError
from labkit.storage.fetching import fetch_all
from labkit.storage.looking import look_all
from tests.support.aws_faults import FaultyEndpoint


def put(s3: Any, bucket: str, **objects: str) -> dict[str, str]:
    """Store texts; return their addresses by name."""
    for key, text in objects.items():
        s3.put_object(Bucket=bucket, Key=key, Body=text.encode())
    return {key: f"s3://{bucket}/{key}" for key in objects}


@pytest.fixture
def keys_at_home(aws: Any, lab_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys where the AWS command line looks for them: a task gets none from the environment."""
    lines = [
        f"{name.lower()} = {os.environ[name]}"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ]
    place = lab_home / "keys"
    place.write_text("\n".join(["[default]", *lines]))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(place))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize("shell", [False, True])
def test_a_command_sees_the_same_as_of_local_files(
    shell: bool, s3: Any, bucket: str, keys_at_home: None, tmp_path: Path
) -> None:
    names = ["a b'c.txt", "$HOME ${out}.txt", "ünï;code.txt"]
    stored = put(s3, bucket, **{f"plate 1/{name}": f"content of {name}" for name in names})
    s3.put_object(Bucket=bucket, Key="refs/genome.fa", Body=b">chr1\nACGT\n")
    rows = [{"n": str(i), "reads": address} for i, address in enumerate(stored.values())]
    command = "cat {ref} {reads} > {out}/all" if shell else "cp {ref} {reads} {out}"
    local = tmp_path / "data"
    local.mkdir()
    for name in names:
        (local / name).write_text(f"content of {name}")
    (local / "genome.fa").write_text(">chr1\nACGT\n")

    def run(ref: str, rows: list[dict[str, str]]) -> dict[str, bytes]:
        flow = labkit.Command(
            command,
            over=[{**row, "ref": ref} for row in rows],
            inputs=["reads", "ref"],
            key="n",
            shell=shell,
            output=tmp_path / "runs",
        )
        job = flow.submit("local").wait(120)
        assert job.state is State.SUCCEEDED, job.failed()
        jobs.append(job)
        return {
            str(path.relative_to(job.path)): path.read_bytes()
            for path in sorted((job.path / "results").rglob("*"))
            if path.is_file() and path.name != ".record.json"
        }

    jobs: list[Any] = []
    remote = run(f"s3://{bucket}/refs/genome.fa", rows)
    assert remote == run(
        str(local / "genome.fa"),
        [{"n": str(i), "reads": str(local / name)} for i, name in enumerate(names)],
    )
    assert len(remote) == (3 if shell else 6)
    record = json.loads(jobs[0].run.folder.record("command", 0, 1).read_text())
    assert record["facts"]["inputs"] == {
        f"s3://{bucket}/refs/genome.fa": sha256(b">chr1\nACGT\n").hexdigest(),
        rows[0]["reads"]: sha256(f"content of {names[0]}".encode()).hexdigest(),
    }
    manifest = json.loads(jobs[0].run.folder.manifest.read_text())
    assert manifest["aws"]["AWS_ENDPOINT_URL"] == os.environ["AWS_ENDPOINT_URL"]
    assert not any("KEY" in name or "TOKEN" in name for name in manifest["aws"])


def test_what_is_not_there_refuses_the_submit(
    s3: Any, bucket: str, keys_at_home: None, tmp_path: Path
) -> None:
    put(s3, bucket, **{f"a/{i}": "x" for i in range(4)})
    rows = [{"reads": f"s3://{bucket}/a/{i}"} for i in range(6)]
    with pytest.raises(RefusedError) as refused:
        labkit.Command("cat {reads}", over=rows, inputs=["reads"], output=tmp_path).submit()
    assert [problem.where for problem in refused.value.problems] == ["row 5, reads", "row 6, reads"]
    assert not list(tmp_path.glob("cat-*"))


def test_an_object_that_was_replaced_is_new_work(
    s3: Any, bucket: str, keys_at_home: None, tmp_path: Path
) -> None:
    (address,) = put(s3, bucket, reads="one").values()
    flow = labkit.Command("cp {reads} {out}", inputs={"reads": address}, output=tmp_path)
    first = flow.submit().wait(120)
    assert flow.submit().path == first.path
    put(s3, bucket, reads="two")
    second = flow.submit().wait(120)
    texts = [next((job.path / "results").rglob("reads")).read_text() for job in (first, second)]
    assert texts == ["one", "two"]


def test_a_vanished_object_fails_the_task_with_the_reason(
    s3: Any, bucket: str, keys_at_home: None, tmp_path: Path
) -> None:
    (address,) = put(s3, bucket, reads="one").values()
    flow = labkit.Command("cat {reads}", inputs={"reads": address}, output=tmp_path)
    job = flow.submit("local").wait(120)
    assert job.state is State.SUCCEEDED
    s3.delete_object(Bucket=bucket, Key="reads")
    job.rerun().wait(120)
    failed = job.failed()
    assert list(failed["reason"]) == ["INPUT"]
    assert f"no object {address}" in failed["text"][0]


class TestFetching:
    def wanted(self, address: str, place: Path, *, shared: bool) -> list[dict[str, Any]]:
        return [{"address": address, "target": str(place / local_name(address)), "shared": shared}]

    def test_what_many_need_is_fetched_once_per_node(
        self, s3: Any, bucket: str, faulty: FaultyEndpoint, tmp_path: Path
    ) -> None:
        (address,) = put(s3, bucket, genome="ACGT" * 1000).values()
        cache = tmp_path / "cache"

        def task(number: int) -> dict[str, str]:
            return fetch_all(self.wanted(address, tmp_path / str(number), shared=True), cache)

        with ThreadPoolExecutor(6) as pool:
            digests = list(pool.map(task, range(6)))
        assert {d[address] for d in digests} == {sha256(b"ACGT" * 1000).hexdigest()}
        gets = [path for method, path in faulty.requests if method == "GET" and "genome" in path]
        assert len(gets) == 1
        copies = [tmp_path / str(n) / local_name(address) for n in range(6)]
        assert len({copy.stat().st_ino for copy in copies}) == 1
        assert not copies[0].stat().st_mode & 0o222, "a task cannot spoil it for others"
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700

        put(s3, bucket, genome="TTTT")
        fetch_all(self.wanted(address, tmp_path / "new", shared=True), cache)
        assert (tmp_path / "new" / local_name(address)).read_text() == "TTTT"
        assert copies[0].read_text() == "ACGT" * 1000

        old = time.time() - 8 * 86400
        for place in cache.iterdir():
            os.utime(place, (old, old))
        task(7)
        assert copies[0].read_text() == "ACGT" * 1000, "who has it keeps it"
        assert len([place for place in cache.iterdir() if place.is_dir()]) == 1

    @pytest.mark.parametrize("kind", ["open", "link", "file"])
    def test_a_place_that_is_not_ours_alone_is_not_used(
        self, kind: str, s3: Any, bucket: str, tmp_path: Path
    ) -> None:
        (address,) = put(s3, bucket, genome="ACGT").values()
        cache, other = tmp_path / "cache", tmp_path / "other"
        other.mkdir()
        if kind == "open":
            cache.mkdir()
            cache.chmod(0o777)
        elif kind == "link":
            cache.symlink_to(other)
        else:
            cache.touch()
        fetch_all(self.wanted(address, tmp_path / "task", shared=True), cache)
        assert (tmp_path / "task" / local_name(address)).read_text() == "ACGT"
        assert kind == "file" or not list(cache.iterdir())

    def test_names_lead_nowhere_else(self, s3: Any, bucket: str, tmp_path: Path) -> None:
        for address in (f"s3://{bucket}/../../x", f"s3://{bucket}/a/", "/etc/passwd"):
            with pytest.raises(StorageError):
                fetch_all(self.wanted(address, tmp_path / "task", shared=False), tmp_path / "cache")


def test_many_objects_of_a_folder_cost_one_request(
    s3: Any, bucket: str, faulty: FaultyEndpoint
) -> None:
    stored = put(s3, bucket, **{f"plate/{i:03d}.tif": "x" * i for i in range(1, 60)})
    missing = f"s3://{bucket}/plate/none.tif"
    faulty.requests = []
    seen = look_all([*stored.values(), missing])
    assert len(faulty.requests) == 1
    sizes = {a: entry.size for a, entry in seen.items() if isinstance(entry, Entry)}
    assert sizes == {address: i for i, address in enumerate(stored.values(), start=1)}
    assert isinstance(seen[missing], NotFoundError)
    (alone,) = look_all([stored["plate/007.tif"]]).values()
    assert isinstance(alone, Entry)
    listed = seen[stored["plate/007.tif"]]
    assert isinstance(listed, Entry)
    assert (alone.size, alone.version) == (listed.size, listed.version)
