"""Atomic writes, locks with a deadline, the end of a log."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit.base import files

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    assert files.write_atomic(path, "old")
    before = path.stat().st_ino
    with path.open() as reader:
        assert files.write_atomic(path, "naïve", sync=True)
        assert reader.read() == "old"
    assert path.read_bytes() == "naïve".encode()
    assert path.stat().st_ino != before and left(tmp_path) == {"list.json"}


@pytest.mark.parametrize(("mode", "seen"), [(0o600, 0o600), (0o644, 0o644), (None, 0o640)])
def test_permissions(tmp_path: Path, mode: int | None, seen: int) -> None:
    umask = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "x", b"1", mode=mode)
    finally:
        os.umask(umask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == seen


def test_exclusive_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert files.write_atomic(path, "first", exclusive=True)
    assert not files.write_atomic(path, "second", exclusive=True)
    assert path.read_text() == "first" and left(tmp_path) == {"x"}


def test_exclusive_on_a_disk_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    assert files.write_atomic(tmp_path / "x", "first", exclusive=True)
    assert not files.write_atomic(tmp_path / "x", "second", exclusive=True)
    assert (tmp_path / "x").read_text() == "first" and left(tmp_path) == {"x"}


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, "new", sync=True)
    assert path.read_text() == "old" and left(tmp_path) == {"x"}


def test_a_promise_is_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    files.write_atomic(tmp_path / "quick", "1")
    assert synced == []
    files.write_atomic(tmp_path / "sure", "1", sync=True)
    assert len(synced) == 2 and synced[0].name.startswith(".sure.") and synced[1] == tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A lock that another process holds."""
    path = tmp_path / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    assert process.stdout.readline() == "held\n"
    yield path, process.pid
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_lock_that_is_held_says_by_whom(elsewhere: tuple[Path, int]) -> None:
    path, pid = elsewhere
    told: list[str] = []
    with (
        pytest.raises(files.LockTimeoutError, match=f"the list of apps .* process {pid} \\("),
        files.locked(path, 0.05, "the list of apps", on_wait=told.append),
    ):
        pytest.fail("it was not held")
    assert len(told) == 1
    assert told[0].startswith(f"waiting for the list of apps, which process {pid} (")


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with files.locked(path, 30, "it", on_wait=lambda _: waits.set()):
            order.append("second")

    thread = threading.Thread(target=second)
    with files.locked(path, 0, "it"):
        thread.start()
        assert waits.wait(20)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]


def test_a_free_lock_waits_for_nobody_and_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("123")
    with files.locked(path, 0, "it", on_wait=pytest.fail):
        assert path.read_text() == "123"


def test_trying_a_lock(elsewhere: tuple[Path, int], tmp_path: Path) -> None:
    with elsewhere[0].open("a") as file:
        assert not files.try_lock(file)
    with (tmp_path / "free").open("a") as file:
        assert files.try_lock(file)


def test_nobody_holds_a_free_lock(tmp_path: Path) -> None:
    assert files.holder(tmp_path / "none") == "another process"


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert files.tail(log) == ""
    log.write_bytes(b"one\ntwo\nthree \xff\n")
    assert files.tail(log) == "one\ntwo\nthree \ufffd"
    assert files.tail(log, 2) == "two\nthree \ufffd"
    assert files.tail(log, 0) == ""
    assert files.tail(log, most=12) == "three \ufffd", "two is cut off"
    assert files.tail(log, most=3) == " \ufffd", "a part of a line is better than nothing"


def test_the_end_of_a_log_from_where_a_run_began(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\nnew\n")
    assert files.tail(log, start=4) == "new"
    log.write_text("x\n")
    assert files.tail(log, start=4) == "x", "it was begun anew"


# A driver's code is alone in its run folder; a file that is sent is synced where it is written.
ALONE = {
    "fcntl.flock": {
        "labkit/base/files.py",
        "labkit/workflows/alignment/task_code/cache.py",
    },
    "os.fsync": {
        "labkit/base/files.py",
        "labkit/workflows/alignment/task_code/cache.py",
        "hub/apps/members/package.py",
        # They run on a node by themselves, and bring their words to the job's log.
        "hub/slurm/job/node.py",
        "hub/slurm/job/probe.py",
    },
}


def test_there_is_one_of_each() -> None:
    tree = Path(labkit.__file__).parents[1]
    for word in ("fcntl.flock", "os.fsync"):
        where = {
            str(path.relative_to(tree))
            for folder in ("hub", "services", "labkit")
            for path in (tree / folder).rglob("*.py")
            if f"{word}(" in path.read_text()
        }
        assert where == ALONE[word], word
