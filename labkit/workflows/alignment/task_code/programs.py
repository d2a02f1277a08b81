"""The argument lists of every program, and what is known of each: no shell sees any of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import causes, pipe

#: Files that an aligner's index must have, after its prefix.
INDEX_FILES = {
    "bwa-mem2": (".0123", ".amb", ".ann", ".bwt.2bit.64", ".pac"),
    "bwa": (".amb", ".ann", ".bwt", ".pac", ".sa"),
    "minimap2": (".mmi",),
}
# Those that are asked; cutadapt and GATK tell it in what they write, and take long to start.
_VERSIONS = {
    "bwa-mem2": (("version",), r"^([0-9]\S*)"),
    "bwa": ((), r"Version: (\S+)"),
    "minimap2": (("--version",), r"^(\S+)"),
    "samtools": (("--version",), r"^samtools (\S+)"),
    "bcftools": (("--version",), r"^bcftools (\S+)"),
    "java": (("-version",), r'version "([^"]+)"'),
}

# On sequencers' reads libdeflate's level 4 is as small as picard's 5 by zlib, and takes a quarter
# less time than samtools' own choice of 6 for 2 % more bytes.
_LEVELS = {"bam": 4, "fast": 1}


class Tools:
    """Runs programs and remembers every command line.

    Parameters
    ----------
    env : dict
        Environment of the programs; its PATH finds them.
    cwd : Path
        Where they run.
    log : Path
        What they say, where nobody asks for it.

    Attributes
    ----------
    commands : list of dict
        ``name``, ``argv`` and, once they have ended, ``seconds`` and ``cpu_seconds``.
    """

    def __init__(self, env: Mapping[str, str], cwd: Path, log: Path) -> None:
        self.env = dict(env)
        self.cwd = cwd
        self.log = log
        self.commands: list[dict[str, Any]] = []
        self._versions: dict[str, str] = {}
        self._asked: dict[str, subprocess.Popen[bytes]] = {}

    def note(self, name: str, argv: Sequence[str]) -> list[str]:
        """Remember a command line and return it with the program's full path.

        Raises
        ------
        Failed
            The program is not installed.
        """
        program = shutil.which(argv[0], path=self.env.get("PATH"))
        if program is None:
            host = os.uname().nodename
            raise pipe.Failed(
                f"the program {argv[0]!r} is not installed in the environment on {host}"
            )
        self._ask(argv[0])
        self.commands.append({"name": name, "argv": list(argv)})
        return [program, *argv[1:]]

    def run(
        self,
        name: str,
        argv: Sequence[str],
        *,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> None:
        """Run a program to its end.

        Parameters
        ----------
        stdout, stderr : Path, optional
            Files for what it writes; without them it goes into the log.

        Raises
        ------
        Failed
            It is not installed, or ended with an error: its last words are in the text.
        """
        full = self.note(name, argv)
        entry = self.commands[-1]
        said = stderr or self.log
        began = time.monotonic()
        with said.open("ab") as errors, (stdout or self.log).open("wb" if stdout else "ab") as out:
            start = errors.tell()
            process = subprocess.Popen(
                full,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=self.env,
                cwd=self.cwd,
            )
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:  # Ctrl-C in a notebook
                process.kill()
                process.wait()
                raise
        process.returncode = code = os.waitstatus_to_exitcode(status)
        entry["seconds"] = round(time.monotonic() - began, 3)
        entry["cpu_seconds"] = round(used.ru_utime + used.ru_stime, 3)
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise pipe.Failed(causes.told(f"{name} {how}", said, start))

    def timed(self, members: Sequence[Any]) -> None:
        """Note what the programs of a pipe took, by the names they were noted under."""
        left = [entry for entry in self.commands if "seconds" not in entry]
        for member in members:
            entry = next((entry for entry in left if entry["name"] == member.name), None)
            if entry:
                left.remove(entry)
                entry["seconds"] = round(member.seconds, 3)
                entry["cpu_seconds"] = round(member.cpu_seconds, 3)

    def version(self, program: str) -> str:
        """Return the version of a program, or an empty text."""
        self._ask(program)
        if program in self._asked:
            answer = self._asked.pop(program).communicate()[0].decode("utf-8", "replace")
            match = re.search(_VERSIONS[program][1], answer, re.MULTILINE)
            self._versions[program] = match[1] if match else ""
        return self._versions.get(program, "")

    def _ask(self, program: str) -> None:
        """Ask a program for its version; it answers while others work."""
        if program not in _VERSIONS or program in self._versions or program in self._asked:
            return
        self._asked[program] = subprocess.Popen(
            [program, *_VERSIONS[program][0]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.env,
        )

    def add_version(self, program: str, version: str) -> None:
        """Note the version of a program that tells it itself."""
        self._versions[program] = version

    def write(self, path: Path) -> None:
        """Write all command lines and versions, as ``commands.json``."""
        programs = sorted({entry["argv"][0] for entry in self.commands})
        versions = {name: text for name in programs if (text := self.version(name))}
        content = {"versions": versions, "commands": self.commands, "host": os.uname().nodename}
        path.write_text(json.dumps(content, indent=1) + "\n")


def index_parts(aligner: str, preset: str) -> str:
    """Return the name of an index: of minimap2 there is one for each preset."""
    return f"minimap2-{preset}" if aligner == "minimap2" else aligner


def index_argv(aligner: str, preset: str, fasta: Path, prefix: Path, cpu: int) -> list[str]:
    """Return the command that makes an index.

    Parameters
    ----------
    preset : str
        Of minimap2: ``map-ont``, ``map-hifi``, ``sr``.
    prefix : Path
        Its files begin so.
    """
    if aligner == "bwa":
        return ["bwa", "index", "-p", str(prefix), str(fasta)]
    if aligner == "bwa-mem2":
        return ["bwa-mem2", "index", "-p", str(prefix), str(fasta)]
    return ["minimap2", "-x", preset, "-t", str(cpu), "-d", f"{prefix}.mmi", str(fasta)]


def read_group(fields: Mapping[str, str]) -> str:
    r"""Return a read group as aligners take it: ``@RG\tID:L1\tSM:s1``, the tabs as ``\t``."""
    return r"\t".join(["@RG", *(f"{tag}:{value}" for tag, value in fields.items())])


def align_argv(
    aligner: str,
    preset: str,
    prefix: Path,
    group: Mapping[str, str],
    cpu: int,
    reads: Sequence[str],
    *,
    interleaved: bool,
    batch: int,
    tags: bool = False,
) -> list[str]:
    """Return the command of an aligner that writes SAM to its output.

    Parameters
    ----------
    reads : sequence of str
        One or two files, ``"-"`` is its input.
    interleaved : bool
        Mates follow each other in one file.
    batch : int
        Bases that are aligned at once. A number of our own, so that neither cores nor backend
        change the result.
    tags : bool
        Behind the names of the reads stand SAM tags, which belong into the alignment.
    """
    if aligner == "minimap2":
        argv = ["minimap2", "-a", "-x", preset, "-t", str(cpu), "-K", str(batch), "--MD"]
        argv += ["-y"] if tags else []
        return [*argv, "-R", read_group(group), f"{prefix}.mmi", *reads]
    argv = [aligner, "mem", "-t", str(cpu), "-K", str(batch), "-R", read_group(group)]
    argv += ["-C"] if tags else []
    return [*argv, *(["-p"] if interleaved else []), str(prefix), *reads]


def cutadapt_argv(
    adapters: Sequence[Sequence[str]],
    reads: Sequence[str],
    report: Path,
    *,
    minimum_length: int | None,
    max_n: float | None,
    quality: int,
    paired: bool,
    cpu: int,
) -> list[str]:
    """Return the command that cuts adapters and drops reads, and writes them, mates in turn.

    Parameters
    ----------
    adapters : sequence of (str, str)
        Adapter of the first and of the second mate; none: nothing is cut.
    reads : sequence of str
        One file (of mates in turn, where they are paired), or two of mates.
    report : Path
        For ``--json``.
    minimum_length : int or None
        Shorter reads are dropped (with their mate).
    max_n : float or None
        Reads with a larger share of N are dropped.
    quality : int
        Ends below are trimmed; 0: not.
    paired : bool
        Whether the reads have mates.
    """
    argv = ["cutadapt", "-j", str(cpu), "--json", str(report)]
    for first, second in adapters:
        argv += ["-a", first]
        if paired:
            argv += ["-A", second]
    if minimum_length is not None:
        argv += ["--minimum-length", str(minimum_length)]
    if max_n is not None:
        argv += ["--max-n", f"{max_n:g}"]
    if quality:
        argv += ["-q", str(quality)]
    if paired:
        argv += ["--pair-filter=any", "--interleaved"]
    return [*argv, *reads]


def fixmate_argv() -> list[str]:
    """Return the command that completes mates, from its input to its output."""
    return ["samtools", "fixmate", "-m", "-u", "-", "-"]


def sort_argv(memory: int, threads: int, scratch: Path) -> list[str]:
    """Return the command that sorts by place.

    Parameters
    ----------
    memory : int
        Bytes in all; what does not fit goes to the scratch disk.
    threads : int
        Threads in all.
    scratch : Path
        Prefix of its temporary files.
    """
    others = threads - 1
    size = f"{max(1, memory // max(1, others) // 1024)}K"  # its first thread has none of its own
    argv = ["samtools", "sort", "-u", "-m", size, "-@", str(others)]
    return [*argv, "-T", str(scratch), "-"]


def markdup_argv(
    report: Path, scratch: Path, *, optical: int, longest: int, molecule_tag: str
) -> list[str]:
    """Return the command that marks duplicates.

    Parameters
    ----------
    optical : int
        Pixels within which duplicates are optical ones; 0: none are looked for.
    longest : int
        Bases of the longest read.
    molecule_tag : str
        Tag that duplicates must share: their library, their UMI; empty: there is none.
    """
    argv = ["samtools", "markdup", "-S", "-u", "-f", str(report), "-T", str(scratch)]
    argv += ["-l", str(longest)]
    if optical:
        argv += ["-d", str(optical)]
    if molecule_tag:
        argv += ["--barcode-tag", molecule_tag]
    return [*argv, "-", "-"]


def count_argv(bed: Path | None = None) -> list[str]:
    """Return the command that counts reads that are mapped, primary and no duplicates.

    Parameters
    ----------
    bed : Path, optional
        Only those with a base in its regions.
    """
    flags = "UNMAP,SECONDARY,QCFAIL,DUP,SUPPLEMENTARY"
    return ["samtools", "view", "-c", "-F", flags, *(["-L", str(bed)] if bed else []), "-"]


def uq_argv(jar: str, fasta: Path, scratch: Path, memory: int) -> list[str]:
    """Return the command that adds the tag UQ (and NM and MD anew): picard's.

    Debian's own ``picard-tools`` is not called: it writes words of its own into the stream.

    Parameters
    ----------
    jar : str
        Of picard, see :func:`picard_jar`.
    memory : int
        Bytes of Java's heap.
    """
    argv = ["java", f"-Xmx{max(256, memory // 1024**2)}m", f"-Djava.io.tmpdir={scratch}"]
    argv += ["-jar", jar, "SetNmMdAndUqTags", "--INPUT", "/dev/stdin", "--OUTPUT", "/dev/stdout"]
    argv += ["--REFERENCE_SEQUENCE", str(fasta), "--COMPRESSION_LEVEL", "0"]
    argv += ["--VALIDATION_STRINGENCY", "SILENT"]  # of unmapped mates, as aligners write them
    return [*argv, "--QUIET", "true", "--CREATE_INDEX", "false", "--CREATE_MD5_FILE", "false"]


def picard_jar(env: Mapping[str, str]) -> str:
    """Return where picard's jar is: ``$PICARD_JAR``, the environment's, or the system's.

    Raises
    ------
    Failed
        There is none.
    """
    folders = [Path(entry).parent for entry in env.get("PATH", "").split(os.pathsep) if entry]
    tried = [folder / "share" / "java" / "picard.jar" for folder in folders]
    tried.insert(0, Path(env.get("PICARD_JAR", "picard.jar")))
    for path in tried:
        if path.is_file():
            return str(path)
    raise pipe.Failed("picard is needed for that, and is not installed here", "INPUT")


def write_argv(
    target: Path, index: Path, file_format: str, fasta: Path, threads: int, drop: str
) -> list[str]:
    """Return the command that writes the alignment and its index from its input.

    Parameters
    ----------
    file_format : str
        ``bam``, ``cram``, or ``fast`` for a BAM that is read once more.
    drop : str
        Tag that is left out, or empty.
    """
    argv = ["samtools", "view", "-@", str(threads), "--write-index"]
    argv += ["-C", "-T", str(fasta)] if file_format == "cram" else ["-b"]
    if file_format in _LEVELS:
        argv += ["--output-fmt-option", f"level={_LEVELS[file_format]}"]
    if drop:
        argv += ["-x", drop]
    return [*argv, "-o", f"{target}##idx##{index}", "-"]
