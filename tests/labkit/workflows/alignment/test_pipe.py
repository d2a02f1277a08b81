from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit.base import process_tree
from labkit.workflows.alignment.task_code import pipe, programs
from labkit.workflows.alignment.task_code.pipe import Failed, Pipe

SLOW = ["sleep", "60"]


@pytest.fixture
def line(tmp_path: Path) -> Pipe:
    return Pipe(dict(os.environ), tmp_path)


def start(line: Pipe, name: str, argv: list[str], tmp_path: Path, **ends: Any) -> pipe.Member:
    return line.start(name, argv, stderr=tmp_path / f"{name}.log", **ends)


def test_data_passes_through_programs_and_threads(line: Pipe, tmp_path: Path) -> None:
    read, write = pipe.joint()
    second, onward = pipe.joint()
    start(line, "cat", ["cat"], tmp_path, stdin=read, stdout=onward)
    start(line, "count", ["wc", "-c"], tmp_path, stdin=second, stdout=tmp_path / "count")
    line.thread("writer", lambda: pipe.write_all(write, b"x" * 3_000_001), close=[write])
    line.wait()
    assert (tmp_path / "count").read_text().strip() == "3000001"


def test_a_program_killed_in_the_middle_is_named_though_its_reader_ends_well(
    line: Pipe, tmp_path: Path
) -> None:
    read, write = pipe.joint()
    member = start(line, "aligner", [*SLOW], tmp_path, stdout=write)
    start(line, "reader", ["cat"], tmp_path, stdin=read, stdout=tmp_path / "out")
    assert member.process is not None
    member.process.send_signal(signal.SIGKILL)
    with pytest.raises(Failed, match=r"^aligner was ended by signal 9 \(SIGKILL\)"):
        line.wait()


def test_who_failed_is_named_before_who_only_lost_its_reader(line: Pipe, tmp_path: Path) -> None:
    read, write = pipe.joint()
    start(line, "source", ["yes"], tmp_path, stdout=write)
    start(
        line,
        "middle",
        ["sh", "-c", "head -c 100000 >/dev/null; echo disk full >&2; exit 3"],
        tmp_path,
        stdin=read,
    )
    with pytest.raises(Failed, match=r"^disk full \(middle ended with code 3\)$"):
        line.wait()


def test_a_program_that_stops_reading_with_code_zero_is_a_failure(
    line: Pipe, tmp_path: Path
) -> None:
    read, write = pipe.joint()
    start(line, "lazy", ["head", "-c", "10"], tmp_path, stdin=read)
    line.thread("writer", lambda: pipe.write_all(write, b"x" * 5_000_000), close=[write])
    with pytest.raises(Failed, match="writer lost its reader"):
        line.wait()


def test_a_thread_that_fails_ends_the_programs_and_its_own_words_are_told(
    line: Pipe, tmp_path: Path
) -> None:
    read, write = pipe.joint()
    start(line, "reader", ["cat"], tmp_path, stdin=read, stdout=tmp_path / "out")
    sleeper = start(line, "sleeper", SLOW, tmp_path)

    def work() -> None:
        pipe.write_all(write, b"some")
        raise Failed("s1_1.fastq.gz is cut off", "INPUT")

    line.thread("reading", work, close=[write])
    with pytest.raises(Failed, match=r"^s1_1\.fastq\.gz is cut off$") as caught:
        line.wait()
    assert caught.value.reason == "INPUT"
    assert sleeper.process is not None and sleeper.done.wait(10)
    assert sleeper.process.returncode == -signal.SIGTERM


def test_a_program_that_ignores_sigterm_is_killed(
    line: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "_GRACE", 0.2)
    script = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    stubborn = start(
        line,
        "stubborn",
        [sys.executable, "-c", script + "; time.sleep(60)"],
        tmp_path,
        stdout=tmp_path / "out",
    )
    while not (tmp_path / "out").read_text():
        assert not stubborn.done.wait(0.01)
    start(line, "false", ["false"], tmp_path)
    with pytest.raises(Failed, match=r"^false ended with code 1$"):
        line.wait()
    assert stubborn.process is not None and stubborn.done.wait(10)
    assert stubborn.process.returncode == -signal.SIGKILL


def test_a_fifo_whose_reader_died_does_not_hang(line: Pipe, tmp_path: Path) -> None:
    fifo = tmp_path / "reads.fastq"
    os.mkfifo(fifo)
    reader = start(line, "cutadapt", ["sh", "-c", "echo no memory >&2; exit 2"], tmp_path)
    line.thread("reading", lambda: os.close(pipe.open_fifo(fifo, reader, line)))
    with pytest.raises(Failed, match=r"^no memory.*\(cutadapt ended with code 2\)"):
        line.wait()


def test_a_program_that_is_not_there_is_told_and_nothing_is_left_open(
    line: Pipe, tmp_path: Path
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read, write = pipe.joint()
    with pytest.raises(Failed, match="no-such-program cannot be started"):
        start(line, "x", ["no-such-program"], tmp_path, stdin=read, stdout=write)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_failed_pipe_leaves_no_process(line: Pipe, tmp_path: Path) -> None:
    for number in range(3):
        start(line, f"sleeper{number}", SLOW, tmp_path)
    start(line, "false", ["false"], tmp_path)
    with pytest.raises(Failed):
        line.wait()
    for member in line.members:
        assert member.done.wait(10)
    assert not [pid for pid in process_tree.descendants(os.getpid()) if _is_sleep(pid)]


def test_what_each_program_took_is_noted_beside_its_command_line(
    line: Pipe, tmp_path: Path
) -> None:
    tools = programs.Tools(dict(os.environ), tmp_path, tmp_path / "log")
    busy = "import time\nwhile time.process_time() < {}: pass"
    for seconds in (0.2, 0.1):  # two of one name, as those that share the contigs
        argv = tools.note("same", [sys.executable, "-c", busy.format(seconds)])
        start(line, "same", argv, tmp_path)
    start(line, "other", tools.note("other", ["true"]), tmp_path)
    line.wait()
    tools.timed(line.members)
    tools.run("alone", [sys.executable, "-c", busy.format(0.1)])
    took = [(entry["name"], entry["cpu_seconds"]) for entry in tools.commands]
    assert [name for name, _ in took] == ["same", "same", "other", "alone"]
    least = [0.2, 0.1, 0.0, 0.1]
    assert all(cpu >= wanted for (_, cpu), wanted in zip(took, least, strict=True))
    assert took[2][1] < 0.1
    assert all(entry["seconds"] >= 0 for entry in tools.commands)


def _is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\x0060")
    except OSError:
        return False
