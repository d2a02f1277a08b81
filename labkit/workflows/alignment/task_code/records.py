"""Check every record of FASTQ files while they are read, and that mates stay in step.

Lists of lines are checked at once, by functions that run in C: a gigabyte takes seconds.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from . import fastq

#: Bases: no short-read instrument's reads are as long.
LONGEST_SHORT = 1000
#: How mates of the two files (or in turn) may tell which they are, beside what aligners know.
MATE_ENDS = ((b".1", b".2"), (b"_1", b"_2"), (b"/F", b"/R"), (b"/f", b"/r"), (b"-1", b"-2"))

_QUALITIES = bytes(range(33, 127))
_NAMES = bytes(range(32, 127)) + b"\t"


class Rule(NamedTuple):
    """What is asked of a file's records.

    Attributes
    ----------
    longest : int
        Bases that no read may be longer than; 0: any length.
    single : bool
        Whether the reads have no mates: then not both mates may be in the file.
    """

    longest: int = 0
    single: bool = False


class Checker:
    """Takes a file's content block by block and gives back whole records, checked.

    Parameters
    ----------
    rule : Rule
        What is asked of them.
    tags : callable, optional
        Gets names of records in turn and returns what is written behind each, as a SAM tag; the
        names' own comments go then.
    ends : tuple of bytes
        What is cut off the names of the file's records in turn: of one, or of two where mates
        follow each other. Empty: names stay as they are.

    Attributes
    ----------
    count : int
        Records so far.
    longest : int
        Bases of the longest.
    qualities : bytes
        Each quality that occurred.
    """

    def __init__(
        self,
        rule: Rule = Rule(),  # noqa: B008
        ends: Sequence[bytes] = (),
        tags: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None,
    ) -> None:
        self.rule = rule
        self.tags = tags
        self.ends = tuple(ends)
        self.count = 0
        self.longest = 0
        self.qualities = b""
        self._rest = b""
        self._mates: set[int] = set()

    def take(self, block: bytes) -> tuple[bytes, list[bytes]]:
        """Take the next block; return the records that are whole with it, and their names.

        Raises
        ------
        FastqError
            A record is not as it must be; the text says which.
        """
        data = self._rest + block
        if b"\r" in data:
            held = data.endswith(b"\r")  # its line feed may come with the next block
            data = data[: len(data) - held].replace(b"\r\n", b"\n") + b"\r" * held
        lines = data.split(b"\n")
        whole = (len(lines) - 1) // 4 * 4
        self._rest = b"\n".join(lines[whole:])
        return self._check(lines[:whole])

    def end(self) -> tuple[bytes, list[bytes]]:
        """Return the last record, where the file's last line has no end; check what is left.

        Raises
        ------
        FastqError
            The file ends within a record.
        """
        rest, self._rest = self._rest.removesuffix(b"\r"), b""
        lines = rest.split(b"\n")
        if not rest.strip(b"\n"):
            return b"", []
        if len(lines) != 4 or len(lines[3]) < len(lines[1]):
            raise fastq.FastqError("is cut off: its last read is not whole")
        return self._check(lines)

    def check_qualities(self) -> None:
        """Check the qualities of all records, at the end of a file: one alone proves nothing.

        Raises
        ------
        FastqError
            They are short reads' of the old kind (Phred+64).
        """
        if self.qualities and self.rule.longest:
            wrong = fastq.old_qualities(min(self.qualities), max(self.qualities))
            if wrong:
                raise fastq.FastqError(wrong)

    def _check(self, lines: list[bytes]) -> tuple[bytes, list[bytes]]:
        lines = self._without_blank_end(lines)
        heads, bases, plus, qualities = (lines[at::4] for at in range(4))
        lengths = list(map(len, bases))
        joined = b"".join(qualities)
        good = (
            {head[:1] for head in heads} <= {b"@"}
            and {line[:1] for line in plus} <= {b"+"}
            and lengths == list(map(len, qualities))
            and not b"".join(bases).translate(None, fastq.BASES)
            and not joined.translate(None, _QUALITIES)
            and not b"".join(heads).translate(None, _NAMES)
        )
        names = [head[1:].partition(b" ")[0].partition(b"\t")[0] for head in heads]
        named = max(map(len, names), default=0) <= fastq.LONGEST_NAME
        if not good or not named or {b"", b"@"} & {name[:1] for name in names}:
            for number in range(len(heads)):
                record = lines[4 * number : 4 * number + 4]
                fastq.check_record(record, self.count + number + 1)
        self._check_lengths(lengths)
        self.qualities += bytes(set(joined.translate(None, self.qualities)))
        if self.rule.single:
            self._check_single(heads)
        if self.ends:
            for at, name in enumerate(names):
                end = self.ends[(self.count + at) % len(self.ends)]
                short = name.removesuffix(end)
                lines[4 * at] = b"@" + short + heads[at][1 + len(name) :]
                names[at] = short
        if self.tags is not None:
            for at, tag in enumerate(self.tags(names)):
                lines[4 * at] = b"@%b %b" % (names[at], tag)
        self.count += len(heads)
        return (b"\n".join(lines) + b"\n" if lines else b""), names

    def _without_blank_end(self, lines: list[bytes]) -> list[bytes]:
        """Keep empty lines behind the last record back: at the end of a file they are allowed."""
        if b"" not in lines[0::4]:
            return lines
        at = 4 * lines[0::4].index(b"")
        if any(lines[at:]) or self._rest.strip(b"\n"):
            return lines
        self._rest = b"\n" * (len(lines) - at) + self._rest
        return lines[:at]

    def _check_lengths(self, lengths: list[int]) -> None:
        most = max(lengths, default=0)
        self.longest = max(self.longest, most)
        if self.rule.longest and most > self.rule.longest:
            number = self.count + lengths.index(most) + 1
            raise fastq.FastqError(
                f"has a read of {most:,} bases among short ones: read {number:,}"
            )

    def _check_single(self, heads: list[bytes]) -> None:
        """Refuse a file that holds first and second mates, not in turn."""
        if {1, 2} <= self._mates:
            return
        said = {head[-2:] for head in heads if b" " not in head}
        said |= {head.partition(b" ")[2][:2] for head in heads}
        mates = {mate for mate in (1, 2) if {b"/%d" % mate, b"%d:" % mate} & said}
        self._mates |= mates
        if {1, 2} <= self._mates:
            raise fastq.FastqError("holds first and second mates, but not in turn")


class Mates:
    """Compares the names of mates, as far as both are known.

    Parameters
    ----------
    paths : (str, str)
        Their files, for people.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [fastq.base_name(path) for path in paths]
        self._names: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self._ended = [False, False]
        self._taken = [0, 0]
        self._compared = 0
        self._lock = threading.Lock()

    def add(self, mate: int, names: Sequence[bytes]) -> None:
        """Take the next names of a mate (0 or 1).

        Raises
        ------
        FastqError
            They are not those of the other's.
        """
        with self._lock:
            self._taken[mate] += len(names)
            self._names[mate].extend(names)
            first, second = self._names
            for _ in range(min(len(first), len(second))):
                one, other = first.popleft(), second.popleft()
                self._compared += 1
                if one != other and fastq.mate_name(one) != fastq.mate_name(other):
                    raise fastq.FastqError(out_of_step(self._compared, one, other, self._paths))
            self._check_end()

    def end(self, mate: int) -> None:
        """Note that a mate's file has ended.

        Raises
        ------
        FastqError
            The other's has more reads.
        """
        with self._lock:
            self._ended[mate] = True
            self._check_end()

    def _check_end(self) -> None:
        for mate, ended in enumerate(self._ended):
            other = 1 - mate
            if ended and self._names[other]:
                more = "has" if self._ended[other] else "has at least"
                raise fastq.FastqError(
                    f"they are no mates: {self._paths[mate]} has {self._taken[mate]:,} reads, "
                    f"{self._paths[other]} {more} {self._taken[other]:,}"
                )

    def behind(self) -> int:
        """Return the mate of which fewer names were taken."""
        return int(self._taken[1] < self._taken[0])


class Pairs:
    """Checks that in a file of mates in turn each two names are equal."""

    def __init__(self) -> None:
        self._left: bytes | None = None
        self._count = 0

    def add(self, names: Sequence[bytes]) -> None:
        """Take the next names.

        Raises
        ------
        FastqError
            A read is not followed by its mate.
        """
        row = [*(() if self._left is None else (self._left,)), *names]
        self._left = row.pop() if len(row) % 2 else None
        for one, other in zip(row[0::2], row[1::2]):  # noqa: B905 -- Python 3.9
            self._count += 1
            if one != other and fastq.mate_name(one) != fastq.mate_name(other):
                shown = f"{show(one)} and {show(other)}"
                number = 2 * self._count - 1
                raise fastq.FastqError(
                    f"holds mates in turn, but reads {number:,} and {number + 1:,} are {shown}"
                )

    def end(self) -> None:
        """Note the end of the file.

        Raises
        ------
        FastqError
            The last read has no mate.
        """
        if self._left is not None:
            text = f"holds mates in turn, but its last read {show(self._left)} has none"
            raise fastq.FastqError(text)


def out_of_step(number: int, one: bytes, other: bytes, files: Sequence[str]) -> str:
    """Say that two reads are no mates."""
    return (
        f"read {number:,} is {show(one)} in {files[0]} and {show(other)} in {files[1]}: "
        "they are not mates of each other"
    )


def show(name: bytes) -> str:
    """Return a read's name for people."""
    return repr(name[:60].decode("ascii", "replace"))


def read_whole(
    paths: Sequence[str], rule: Rule, ends: Sequence[Sequence[bytes]], interleaved: bool
) -> list[Checker]:
    """Read the files of a lane to their end, mates in step.

    Parameters
    ----------
    paths : sequence of str
        One or two.
    ends : sequence of (sequence of bytes)
        Of each file, as :class:`Checker` takes them.

    Returns
    -------
    list of Checker
        One per file: how many reads it has, and its longest.

    Raises
    ------
    FastqError
        A file is no whole FASTQ, or they are no mates; the text says where.
    OSError
        A file cannot be read.
    """
    checkers = [Checker(rule, end) for end in ends]
    readers: list[fastq.Reader] = []
    try:
        readers.extend(map(fastq.Reader, paths))
        blocks = [named(path, reader.blocks) for path, reader in zip(paths, readers)]  # noqa: B905
        mates, pairs = Mates(paths), Pairs()
        left = set(range(len(paths)))
        while left:
            at = mates.behind() if len(left) == 2 else next(iter(left))
            block = next(blocks[at], None)
            with _Named(paths[at]):
                _, names = checkers[at].end() if block is None else checkers[at].take(block)
                if interleaved:
                    pairs.add(names)
                    if block is None:
                        pairs.end()
            if len(paths) == 2:
                mates.add(at, names)
                if block is None:
                    mates.end(at)
            if block is None:
                left.discard(at)
    finally:
        for reader in readers:
            reader.close()
    return checkers


class _Named:
    """Lets what is wrong with a file name it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, fastq.FastqError):
            raise fastq.FastqError(f"{self._path} {error}") from None


def named(path: str, blocks: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Give the blocks of a file; what is wrong with it names it."""
    with _Named(path):
        yield from blocks()
