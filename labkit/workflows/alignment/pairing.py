"""How a lane's mates lie in its files: in two, or in turn in one, and how their names tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from labkit.base.problems import Problem
from labkit.workflows.alignment.samplesheet import Lane
from labkit.workflows.alignment.task_code import fastq, records


@dataclass(frozen=True)
class Pairing:
    """How the mates of a lane are found.

    Attributes
    ----------
    interleaved : bool
        Whether one file has them in turn.
    ends : tuple of tuple of bytes
        Of each file, what is cut off its names in turn (see :class:`records.Checker`).
    """

    interleaved: bool
    ends: tuple[tuple[bytes, ...], ...]


def read_pairing(lane: Lane, heads: Sequence[fastq.Head]) -> tuple[Pairing, list[Problem]]:
    """Return how the mates of a lane of short reads lie, by the first reads of its files."""
    if len(heads) == 2:
        return _two_files(lane, heads[0], heads[1])
    where = f"row {lane.row}, fastq_1"
    head = heads[0]
    names, mates = head.names, head.order
    first, second = names[0::2], names[1::2]
    in_turn = not set(mates[0::2]) & {2} and not set(mates[1::2]) & {1}
    if in_turn and second and first[: len(second)] == second and _differ(second):
        return Pairing(True, ((),)), []
    for one, other in records.MATE_ENDS:
        stems = _stems(first, one), _stems(second, other)
        long_enough = len(second) > 1  # else SRR1.1 and SRR1.2 may be two reads
        if long_enough and stems[1] and stems[0][: len(second)] == stems[1] and _differ(stems[1]):
            return Pairing(True, ((one, other),)), []
    repeated = sum(one == other for one, other in pairwise(names))
    if {1, 2} <= head.mates or (repeated and len(set(names)) > 1):
        text = "holds mates, but not each read is followed by its own."
        hint = "Give two files, or one in which the mates follow each other in turn."
        return Pairing(False, ((),)), [Problem(where, text, hint)]
    return Pairing(False, ((),)), []


def _two_files(lane: Lane, first: fastq.Head, second: fastq.Head) -> tuple[Pairing, list[Problem]]:
    where = f"row {lane.row}"
    swapped = "fastq_1 holds the second mates and fastq_2 the first: they are swapped."
    plain = Pairing(False, ((), ()))
    if first.mates == {2} and second.mates == {1}:
        return plain, [Problem(where, swapped, "Exchange the two.")]
    count = min(len(first.names), len(second.names))
    if first.names[:count] != second.names[:count]:
        for one, other in records.MATE_ENDS:
            for ends in ((one, other), (other, one)):
                stems = _stems(first.names, ends[0]), _stems(second.names, ends[1])
                if stems[0] and stems[0][:count] == stems[1][:count]:
                    if ends == (other, one):
                        return plain, [Problem(where, swapped, "Exchange the two.")]
                    return Pairing(False, ((one,), (other,))), []
    problems = [
        Problem(f"{where}, fastq_{mate}", f"holds reads of mate {min(head.mates - {mate})}.")
        for mate, head in ((1, first), (2, second))
        if head.mates - {mate}
    ]
    pairs = zip(first.names, second.names, strict=False)
    for number, (name, mate) in enumerate(pairs, 1):
        if name != mate:
            text = records.out_of_step(number, name, mate, ("fastq_1", "fastq_2"))
            problems.append(Problem(where, f"{text}.", "Give the two files of one lane."))
            break
    return plain, problems


def _stems(names: Sequence[bytes], end: bytes) -> list[bytes]:
    """Return names without an end that all of them have; none where one lacks it."""
    if not all(name.endswith(end) and len(name) > len(end) for name in names):
        return []
    return [name.removesuffix(end) for name in names]


def _differ(names: Sequence[bytes]) -> bool:
    """Whether names are names: not one for all."""
    return len(names) == 1 or len(set(names)) > 1


def of_lane(lane: Lane, pairings: Mapping[str, Pairing]) -> Pairing:
    """Return how a lane's mates lie; long reads have none."""
    return pairings.get(lane.fastq_1, Pairing(False, ((),) * len(lane.files)))


def rule(lane: Lane, pairing: Pairing, long: bool) -> records.Rule:
    """Return what is asked of a lane's records."""
    if long:
        return records.Rule()
    return records.Rule(records.LONGEST_SHORT, not lane.fastq_2 and not pairing.interleaved)
