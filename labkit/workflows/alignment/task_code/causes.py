"""Find in what a program said why it failed: people read a table's first fifty characters."""

from __future__ import annotations

import re
from pathlib import Path

_TAIL = 64 * 1024  # bytes of messages that are looked through
_LONGEST = 600  # characters of a cause
# Messages of programs, the plainest first; the first group is the cause.
_CAUSES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"^A USER ERROR has occurred: (.+)",  # GATK
        r"^cutadapt: error: (.+)",
        r"^ERROR: (?!return code)(.+)",  # cutadapt, of what it reads
        r"^\[E::[^\]]*\] (.+)",  # htslib, bwa, minimap2
        r"^\[(?:mem_sam_pe|[a-z_]*fail[a-z_]*|err_[a-z_]*)\] (.+)",  # bwa
        r"^(?:Exception in thread [^:]*?\s)?(?:[a-z][\w$]*\.)+(\w*(?:Error|Exception)\b.*)",  # Java
        r"^(\w+(?:Error|Exception): .+)",  # Python
    )
)
# Lines that are no cause: what a program tells of itself, of its progress, or of its own code.
_IDLE = re.compile(
    r"\s*$|\s+at \S+\(.*\)$|\s*\.\.\. \d+ more$|\[M::|\d\d:\d\d:\d\d\.\d+ (?:INFO|DEBUG|WARN)\b"
    r"|\[.*\] (?:org|picard)\.\S+ done\.|Runtime\.totalMemory|\*{5,}|Set the system property"
    r"|NOTE: Picked up|Picked up |Using GATK jar|Running:|To get help|INFO\t|WARNING\t"
    r"|This is cutadapt |Command line parameters:|Processing (?:single|paired)-end reads"
    r"|Looking to launch|Launching executable|={5,}"
)


def cause(said: str) -> str:
    """Return the cause that a program's messages tell, on one line; empty where they are idle."""
    for pattern in _CAUSES:
        if matches := pattern.findall(said):
            return _short(matches[-1])
    lines = [line for line in said.splitlines() if not _IDLE.match(line)]
    return _short(" ".join(line.strip() for line in lines[-4:]))


def told(how: str, log: Path, start: int = 0) -> str:
    """Return how a program ended, with the cause first where its messages tell one.

    Parameters
    ----------
    how : str
        ``"sort ended with code 1"``.
    log : Path
        What it said.
    start : int
        Bytes of the log that are not of it.
    """
    if not log.is_file():
        return how
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - _TAIL))
        words = cause(file.read().decode("utf-8", "replace"))
    return f"{words} ({how})" if words else how


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
