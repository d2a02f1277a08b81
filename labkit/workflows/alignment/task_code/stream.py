"""A sample's stream: lanes joined, mates fixed, sorted, duplicates marked, written and measured.

No SAM touches the disk; every program reads what the one before writes.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from . import lanes, layout, pipe, programs, regions, sizes, umis, windows

_LIBRARY_TAG = "Xl"  # lower case: a tag for end users, left out of what is written
_SORT_THREADS = 4
_READING = 0.9  # share of the progress bar until all reads are in


class Stream:
    """One sample's stream.

    Parameters
    ----------
    task : Request
        The task.
    tools : Tools
        Remembers the command lines.
    reference : Reference
        Where FASTA and index are on this node.
    """

    def __init__(self, task: Any, tools: Any, reference: Any) -> None:
        self.task = task
        self.tools = tools
        self.reference = reference
        self.settings: dict[str, Any] = task.settings
        sample = task.params["sample"]
        metrics = task.out / layout.METRICS
        metrics.mkdir()
        groups = [content["read_group"] for content in sample["lanes"]]
        several = len({group["LB"] for group in groups}) > 1
        self.tag = _LIBRARY_TAG if several and self.settings["mark_duplicates"] else ""
        self.umis = any(content.get("umi") for content in sample["lanes"])
        self.lanes = [
            lanes.Lane(number, content, self.settings, metrics, task.tmp, self.tag)
            for number, content in enumerate(sample["lanes"])
        ]
        self.size = max(1, sum(lane.size for lane in self.lanes))
        self.sam = lanes.Sam(groups, "" if self.umis else self.tag)
        self.paired = any(lane.mates == 2 for lane in self.lanes)
        self.line = pipe.Pipe(tools.env, task.tmp)
        self.told = 0.0

    def run(self, target: Path, file_format: str) -> None:
        """Run it to its end.

        Parameters
        ----------
        target : Path
            The alignment to write; its index is written beside it.
        file_format : str
            ``bam``, ``cram``, or ``fast`` for a BAM that is read once more.

        Raises
        ------
        Failed
            A member failed, or reads were lost.
        """
        try:
            read, write = pipe.joint()
            self.line.thread("lanes", lambda: self._lanes(write), close=[write])
            if self.paired:
                read = self._program("fixmate", programs.fixmate_argv(), read)
            read = self._program("sort", self._sort(), read)
            if self.settings["uq"]:
                memory = min(2 * 1024**3, self.task.memory // 4)
                jar = programs.picard_jar(self.tools.env)
                argv = programs.uq_argv(jar, self.reference.fasta, self.task.tmp, memory)
                read = self._program("SetNmMdAndUqTags", argv, read)
            if self.settings["mark_duplicates"]:
                read = self._program("markdup", self._markdup(), read)
            ends = self._measures(file_format)
            ends.append(self._writer(target, file_format))
            self.line.thread("tee", lambda: _tee(read, ends), close=[*ends, read])
            self.line.wait(self._tick)
        except BaseException:
            self.line.abort()
            raise
        self.tools.timed(self.line.members)

    def _program(self, name: str, argv: list[str], read: int) -> int:
        """Start a program of the chain; return the end that its output is read from."""
        result, write = pipe.joint()
        log = self.task.tmp / f"{name}.log"
        self.line.start(name, self.tools.note(name, argv), stdin=read, stdout=write, stderr=log)
        return int(result)

    def _lanes(self, target: int) -> None:
        for lane in self.lanes:
            self.task.say(f"lane {lane.name}: {', '.join(lane.files)}")
            prefix, cpu = self.reference.prefix, self.task.cpu
            lane.run(self.line, self.tools, prefix, cpu, target, self.sam)
            counts = lane.counts()
            self.task.say(f"lane {lane.name}: {counts['reads']:,} reads read and aligned")

    def _sort(self) -> list[str]:
        threads = max(1, min(_SORT_THREADS, self.task.cpu))
        settings = self.settings
        memory = sizes.sort_memory(
            self.task.memory, settings["aligner"], self.reference.length, self.task.cpu
        )
        if settings["uq"]:
            memory //= 2
        argv: list[str] = programs.sort_argv(memory, threads, self.task.tmp / "sort")
        return argv

    def _markdup(self) -> list[str]:
        argv: list[str] = programs.markdup_argv(
            self.task.out / layout.MARKDUP,
            self.task.tmp / "markdup",
            optical=self.task.params["optical"],
            longest=max(300, 2 * int(self.task.params["longest"])),
            molecule_tag=self.tag or (umis.TAG if self.umis else ""),
        )
        return argv

    def _measures(self, file_format: str) -> list[int]:
        """Start what measures the stream; return the ends that it is written into."""
        out, fasta = self.task.out, self.reference.fasta
        measures = [
            ("flagstat", ["samtools", "flagstat", "-O", "json", "-"], layout.FLAGSTAT),
            ("stats", ["samtools", "stats", "-r", str(fasta), "-"], layout.STATS),
            ("coverage", ["samtools", "coverage", "-"], layout.COVERAGE),
        ]
        if file_format == "cram":  # the index of a BAM holds it
            measures.append(("idxstats", ["samtools", "idxstats", "-"], layout.IDXSTATS))
        ends = [self._measure(name, argv, out / target) for name, argv, target in measures]
        read, write = pipe.joint()
        ends.append(self._measure("depth", ["samtools", "depth", "-"], write))
        kept = out / layout.DEPTH if self.settings["depth"] else None
        contigs, window = dict(self.reference.contigs), self.settings["window"]
        work = partial(windows.collect, read, contigs, window, out / layout.WINDOWS, kept)
        self.line.thread("windows", work, close=[read])
        given = {kind: self.task.files / name for kind, name in layout.REGIONS.items()}
        given = {kind: path for kind, path in given.items() if path.is_file()}
        for kind, path in given.items():
            ends += self._regions(kind, path)
        if given:
            ends.append(self._measure("usable", programs.count_argv(), out / layout.USABLE))
        return ends

    def _regions(self, kind: str, path: Path) -> list[int]:
        """Start what measures targets or baits; return the ends that the stream is written into."""
        listed, merged = regions.read(path), self.task.tmp / f"{kind}.merged.bed"
        regions.write(merged, regions.merge(listed))
        out = self.task.out
        reads = out / layout.region_metrics(kind, "reads.txt")
        ends = [self._measure(f"reads on {kind}", programs.count_argv(merged), reads)]
        read, write = pipe.joint()
        # of two mates that overlap a base counts once: it is one molecule
        argv = ["samtools", "depth", "-s", "-b", str(merged), "-"]
        ends.append(self._measure(f"depth of {kind}", argv, write))
        target = out / layout.region_metrics(kind, "tsv")
        self.line.thread(kind, partial(regions.collect, read, listed, target), close=[read])
        return ends

    def _measure(self, name: str, argv: list[str], target: Path | int) -> int:
        """Start what reads the stream; return the end to write into."""
        read, end = pipe.joint()
        log = self.task.tmp / f"{name}.log"
        self.line.start(name, self.tools.note(name, argv), stdin=read, stdout=target, stderr=log)
        return int(end)

    def _writer(self, target: Path, file_format: str) -> int:
        index = target.with_name(layout.index_name(target.name, self.reference.longest))
        threads = max(1, min(4, self.task.cpu // 2))
        argv = programs.write_argv(
            target, index, file_format, self.reference.fasta, threads, self.tag
        )
        read, write = pipe.joint()
        log = self.task.tmp / "write.log"
        self.line.start("write", self.tools.note("write", argv), stdin=read, stderr=log)
        return int(write)

    def _tick(self) -> None:
        if time.monotonic() - self.told < 1.0:
            return
        self.told = time.monotonic()
        taken = sum(lane.taken for lane in self.lanes)
        reads = sum(lane.reads for lane in self.lanes)
        share = min(1.0, taken / self.size)
        if reads and share:
            self.task.progress(int(reads * _READING), max(1, int(reads / share)))


def _tee(read: int, ends: list[int]) -> None:
    """Write what is read into all ends."""
    while block := os.read(read, pipe.BLOCK):
        for end in ends:
            pipe.write_all(end, block)
