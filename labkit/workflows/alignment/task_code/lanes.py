"""One lane of a sample: its FASTQ files, cut and aligned, as SAM into the sample's stream."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from . import fastq, objects, pipe, programs, records, umis

# What an aligner says of each batch: how many reads it was given.
_BATCHES = {
    "bwa": re.compile(rb"\[M::process\] read (\d+) sequences"),
    "bwa-mem2": re.compile(rb"M::kt_pipeline\] read (\d+) sequences"),
    "minimap2": re.compile(rb"M::worker_pipeline\S*\] mapped (\d+) sequences"),
}


class Lane:
    """One lane's way through the programs, and what was counted on it.

    Parameters
    ----------
    number : int
        From 0.
    content : dict
        ``lane``, ``fastq_1``, ``fastq_2`` (empty: single-end, or ``interleaved``),
        ``read_group``, ``name_ends`` and ``rule`` (see ``records.py``).
    settings : dict
        The job's settings.
    library_tag : str
        Tag that tells a read's library and UMI, where samples have several libraries; or empty.
    metrics, tmp : Path
        Folders for reports and for FIFOs.
    """

    def __init__(
        self,
        number: int,
        content: dict[str, Any],
        settings: dict[str, Any],
        metrics: Path,
        tmp: Path,
        library_tag: str = "",
    ) -> None:
        self.library_tag = library_tag
        self.name: str = content["lane"]
        self.group: dict[str, str] = content["read_group"]
        self.files: list[str] = [content[f] for f in ("fastq_1", "fastq_2") if content[f]]
        self.settings = settings
        filters = [settings[name] is not None for name in ("minimum_length", "max_n")]
        self.trims = bool(settings["adapters"] or any(filters) or settings["quality"])
        self.aligner: str = settings["aligner"]
        self.log = metrics / f"{self.name}.{self.aligner}.log"
        self.report = metrics / f"{self.name}.cutadapt.json"
        self.report_text = metrics / f"{self.name}.cutadapt.txt"
        self.fifos = [tmp / f"lane{number}.{mate + 1}.fastq" for mate in range(len(self.files))]
        self.interleaved: bool = content["interleaved"]
        self.mates = 2 if self.interleaved else len(self.files)
        rule = records.Rule(**content["rule"])
        ends = [[end.encode() for end in listed] for listed in content["name_ends"]]
        self.checkers = [records.Checker(rule, listed) for listed in ends]
        self.umi: str = content.get("umi", "")
        self.readers: list[Any] = []
        self.records = 0

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(objects.size(path) for path in self.files)

    @property
    def taken(self) -> int:
        """Bytes that were read of its files."""
        return sum(reader.taken for reader in self.readers)

    @property
    def reads(self) -> int:
        """Reads that were read, of both mates."""
        return sum(checker.count for checker in self.checkers)

    @cached_property
    def trimming(self) -> dict[str, Any]:
        """What cutadapt counted."""
        content: dict[str, Any] = json.loads(self.report.read_text())
        return content

    def run(self, line: Any, tools: Any, prefix: Path, cpu: int, target: int, sam: Sam) -> None:
        """Run the lane to its end.

        Parameters
        ----------
        line : Pipe
            What its programs join.
        prefix : Path
            The aligner's index.
        target : int
            End of the pipe that SAM goes into.
        sam : Sam
            Joins the SAM of all lanes.

        Raises
        ------
        Stopped
            A member failed; the pipe tells which.
        """
        for fifo in self.fifos:
            os.mkfifo(fifo, 0o600)
        inputs = [str(fifo) for fifo in self.fifos]
        read, write = pipe.joint()
        trimmed: tuple[int | None, int | None] = (None, None)
        source: int | None = None
        if self.trims:
            trimmed = pipe.joint()
            source = trimmed[0]
            reads, mates_in_turn = ["-"], self.mates == 2
        else:
            reads, mates_in_turn = inputs, self.interleaved
        argv = programs.align_argv(
            self.aligner,
            self.settings["preset"],
            prefix,
            self.group,
            cpu,
            reads,
            interleaved=mates_in_turn,
            batch=self.settings["batch"],
            tags=bool(self.umi),
        )
        name = f"{self.aligner} of lane {self.name}"
        argv = tools.note(name, argv)
        members = [line.start(name, argv, stdin=source, stdout=write, stderr=self.log)]
        reader = members[0]
        if self.trims:
            argv = programs.cutadapt_argv(
                self.settings["adapters"],
                inputs,
                self.report,
                minimum_length=self.settings["minimum_length"],
                max_n=self.settings["max_n"],
                quality=self.settings["quality"],
                paired=self.mates == 2,
                cpu=1 + cpu // 16,  # one core of it feeds a dozen of an aligner's
            )
            name = f"cutadapt of lane {self.name}"
            argv = tools.note(name, argv)
            reader = line.start(name, argv, stdout=trimmed[1], stderr=self.report_text)
            members.append(reader)
        mates = records.Mates(self.files)
        for mate in range(len(self.files)):
            name = f"reading {fastq.base_name(self.files[mate])}"
            ends: list[int] = []
            feed = partial(self._feed, mate, reader, line, ends, mates)
            members.append(line.thread(name, feed, close=ends))
        try:
            self.records = sam.copy(read, target)
        finally:
            os.close(read)
        for member in members:
            member.done.wait()
        if line.stopping or any(member.failure for member in members):
            raise pipe.Stopped
        for fifo in self.fifos:
            fifo.unlink()
        if self.trims:
            tools.add_version("cutadapt", self.trimming["cutadapt_version"])

    def _feed(self, mate: int, reader: Any, line: Any, ends: list[int], mates: Any) -> None:
        """Write a FASTQ's records into its FIFO, each checked, and the mates in step.

        The FIFO's end goes into ``ends``: it is closed when it is known how this ended, so that
        a file that is cut off never looks like one that has ended.
        """
        path = self.files[mate]
        checker, pairs = self.checkers[mate], records.Pairs()
        of_file = True  # what is wrong with both files names them itself
        try:
            molecules = umis.of_lane(self.umi)
            if molecules is not None:
                checker.tags = partial(self._tags, molecules)
            source = fastq.Reader(path)
            self.readers.append(source)
            end = pipe.open_fifo(self.fifos[mate], reader, line)
            ends.append(end)
            blocks = source.blocks()
            block: bytes | None = b""
            while block is not None:
                of_file = True
                block = next(blocks, None)
                data, names = checker.end() if block is None else checker.take(block)
                if block is None:
                    checker.check_qualities()
                    if molecules is not None:
                        molecules.end()
                if self.interleaved:
                    pairs.add(names)
                    if block is None:
                        pairs.end()
                if len(self.files) == 2:
                    of_file = False
                    mates.add(mate, names)
                    if block is None:
                        mates.end(mate)
                pipe.write_all(end, data)
            source.close()
        except fastq.FastqError as error:
            where = f" (lane {self.name}, {path})"
            text = f"{fastq.base_name(path)} {error}" if of_file else str(error)
            raise pipe.Failed(f"{text}{where}", "INPUT") from None

    def _tags(self, molecules: umis.Umis, names: Sequence[bytes]) -> list[bytes]:
        """Return the SAM tags of reads: the UMI, and where needed the library with it."""
        sequences = molecules.take(names)
        tags = [b"%b:Z:%b" % (umis.TAG.encode(), umi) for umi in sequences]
        if self.library_tag:
            head = f"\t{self.library_tag}:Z:{self.group['LB']} ".encode()
            tags = [tag + head + umi for tag, umi in zip(tags, sequences)]  # noqa: B905 -- 3.9
        return tags

    def counts(self) -> dict[str, Any]:
        """Return how many reads each member counted.

        Raises
        ------
        Failed
            They do not fit: reads were lost.
        """
        given = aligned = self.reads
        dropped: dict[str, int] = {}
        if self.trims:
            counted = self.trimming["read_counts"]
            mates = self.mates
            seen = counted["input"] * mates
            _same(self.name, "were read", self.reads, "cutadapt counted", seen)
            given = counted["output"] * mates
            dropped = {name: n * mates for name, n in counted["filtered"].items() if n}
            known = given + sum(dropped.values())
            _same(self.name, "were given to cutadapt", seen, "it wrote or dropped", known)
        aligned = aligner_count(self.aligner, self.log.read_bytes())
        _same(self.name, "went to the aligner", given, f"{self.aligner} counted", aligned)
        return {"reads": self.reads, "trimmed": given, "dropped": dropped, "aligned": aligned}


class Sam:
    """Joins the SAM of a sample's lanes: one head with all read groups, then all records.

    Parameters
    ----------
    groups : list of dict
        Read groups of all lanes, in order.
    tag : str
        Tag that each record gets with its library, so that duplicates are looked for in each
        library alone; empty where there is one library.
    """

    def __init__(self, groups: list[dict[str, str]], tag: str) -> None:
        self.groups = groups
        self.tag = tag
        self._lane = 0

    def copy(self, source: int, target: int) -> int:
        """Copy a lane's SAM; return how many records it had."""
        lane, self._lane = self._lane, self._lane + 1
        head, rest = self._head(source)
        if lane == 0:
            others = [programs.read_group(g).replace(r"\t", "\t") for g in self.groups[1:]]
            pipe.write_all(target, head + "".join(f"{line}\n" for line in others).encode())
        end = b"\n"
        if self.tag:
            end = f"\t{self.tag}:Z:{self.groups[lane]['LB']}\n".encode()
        count = 0
        while rest:
            count += rest.count(b"\n")
            pipe.write_all(target, rest if end == b"\n" else rest.replace(b"\n", end))
            rest = os.read(source, pipe.BLOCK)
        return count

    @staticmethod
    def _head(source: int) -> tuple[bytes, bytes]:
        """Read until the first record; names of reads never begin with '@' in SAM."""
        data, at = b"", 0
        while True:
            block = os.read(source, pipe.BLOCK)
            data += block
            while data[at : at + 1] == b"@":
                line_end = data.find(b"\n", at)
                if line_end < 0:
                    break
                at = line_end + 1
            if not block or (at < len(data) and data[at : at + 1] != b"@"):
                return data[:at], data[at:]


def aligner_count(aligner: str, log: bytes) -> int:
    """Return how many reads an aligner says it was given."""
    return sum(int(match[1]) for match in _BATCHES[aligner].finditer(log))


def _same(lane: str, one: str, count: int, other: str, seen: int) -> None:
    if count != seen:
        text = f"{abs(count - seen):,} reads differ: {count:,} reads {one}, {other} {seen:,}"
        raise pipe.Failed(f"{text} (lane {lane})", "CHECK")
