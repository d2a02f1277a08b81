"""Split image sets into tasks: big enough to pay for start-up, small enough to end together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.workflows.cellprofiler.task_code.costs import Cost

#: Start-up should stay below this share of a task's CPU time.
STARTUP_SHARE = 0.05
#: ... and may rise to this, rather than leave workers idle on a small plate.
SMALL_PLATE_SHARE = 0.15
#: The last task may keep the others waiting for this share of the whole time.
TAIL_SHARE = 0.1
#: Longest task, in seconds: what a lost node costs at most.
LONGEST = 3600.0
MOST_TASKS = 10_000


@dataclass(frozen=True)
class Chunks:
    """How image sets are split.

    Attributes
    ----------
    rows : tuple of tuple of int
        Row numbers (from 0) of each chunk, rising.
    size : int
        Image sets that were aimed at.
    note : str
        Why, for people.
    """

    rows: tuple[tuple[int, ...], ...]
    size: int
    note: str


def chunk_size(count: int, cost: Cost, workers: int | None, shared: bool = False) -> int:
    """Return how many image sets a task should hold.

    Parameters
    ----------
    count : int
        Image sets in all.
    cost : Cost
        Start-up F and cost per image set P.
    workers : int or None
        Tasks that can run at once; None where nobody knows.
    shared : bool
        Others use the workers too (a cluster): those that this job leaves idle are not lost, and
        start-up is CPU time that they do not get.

    Notes
    -----
    Start-up is at most 5 % from ``n = F (1 - s) / (s P)`` on. Where that leaves workers of one's
    own idle, up to 15 % is accepted. Above that size, tasks grow as long as the last one takes
    less than a tenth of the whole time, and end together.
    """
    if count < 1:
        return 1
    least = _at_share(cost, STARTUP_SHARE)
    longest = max(1, int(LONGEST / cost.image_set))
    if workers is None:
        size = max(least, math.ceil(count / MOST_TASKS))
        return max(1, min(size, longest, count))
    fair = math.ceil(count / workers)
    if fair <= least:
        share = STARTUP_SHARE if shared else SMALL_PLATE_SHARE
        size = max(fair, min(least, _at_share(cost, share)))
    else:
        size = max(least, min(2 * least, int(TAIL_SHARE * fair)))
        waves = math.ceil(count / (size * workers))
        size = math.ceil(count / (waves * workers))
    return max(1, min(size, longest, count))


def _at_share(cost: Cost, share: float) -> int:
    return max(1, math.ceil(cost.startup * (1 - share) / (share * cost.image_set)))


def split(
    keys: Sequence[object], size: int, splits: Sequence[object] | None = None
) -> list[list[int]]:
    """Split rows into chunks that keep rows with the same key together.

    Parameters
    ----------
    keys : sequence
        Group of each row; all different where rows are independent.
    size : int
        Rows to aim at. A group that is larger is a chunk of its own.
    splits : sequence, optional
        Rows that differ here are never in one chunk (the plate, with illumination functions).

    Returns
    -------
    list of list of int
        Row numbers, from 0.
    """
    groups: dict[tuple[object, object], list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault((splits[row] if splits is not None else None, key), []).append(row)
    parts: dict[object, list[list[int]]] = {}
    for (part, _), rows in groups.items():
        parts.setdefault(part, []).append(rows)
    chunks = []
    for members in parts.values():
        chunks += _fill(members, size)
    return sorted((sorted(chunk) for chunk in chunks), key=lambda chunk: chunk[0])


def _fill(groups: list[list[int]], size: int) -> list[list[int]]:
    """Join neighbouring groups to chunks of nearly equal size, none above ``size`` if possible."""
    total = sum(map(len, groups))
    wanted = math.ceil(total / size)
    target = total / wanted
    chunks: list[list[int]] = [[]]
    done = 0
    for rows in groups:
        here = chunks[-1]
        full = here and len(here) + len(rows) > size
        due = here and done + len(rows) / 2 > target * len(chunks)
        if full or due:
            chunks.append([])
        chunks[-1] += rows
        done += len(rows)
    return chunks


def plan_chunks(
    keys: Sequence[object],
    cost: Cost,
    workers: int | None,
    size: int | None = None,
    splits: Sequence[object] | None = None,
    shared: bool = False,
) -> Chunks:
    """Choose the size (unless it is given) and split.

    Parameters
    ----------
    keys, splits : sequence
        See :func:`split`.
    size : int, optional
        Image sets per task as a person wants it.
    """
    aim = size or chunk_size(len(keys), cost, workers, shared)
    rows = split(keys, aim, splits)
    longest = max(map(len, rows), default=0)
    note = (
        f"{len(keys):,} image sets in {len(rows):,} tasks of up to {longest:,}; {cost}; "
        f"start-up is {cost.share(longest):.0%} of a task"
    )
    return Chunks(tuple(map(tuple, rows)), aim, note)
