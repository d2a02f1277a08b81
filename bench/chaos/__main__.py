"""``python -m bench.chaos``: see the package."""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import bench.chaos
from bench.chaos.disks import HOW, WHICH, DiskRound
from bench.chaos.local import LocalRound
from bench.chaos.rounds import Round
from bench.chaos.slurm import SlurmRound, cluster
from bench.chaos.verify import FAULTS, summed


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Give a folder; it stays where it was asked for, or where a round is kept for its fault."""
    place = keep or Path(tempfile.mkdtemp(prefix="labkit-chaos-", dir="/var/tmp"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield place
    finally:
        os.chdir("/")
        if keep is None and not list(place.iterdir()):
            place.rmdir()


def _large(kind: type[Round], tasks: int) -> Callable[[Path, random.Random], Round]:
    """Return rounds of many short tasks, with kills from their beginning to their end."""
    changes = {"tasks": (tasks, tasks), "longest": 0.05, "most": (200, 200), "pause": (0.5, 4.0)}
    large = type(f"Large{kind.__name__}", (kind,), changes)
    return lambda folder, rng: large(folder, rng, patience=400.0 + tasks / 2)


def play(
    kind: Callable[[Path, random.Random], Round],
    folder: Path,
    seed: int,
    kills: int,
    seconds: float,
) -> tuple[collections.Counter[str], collections.Counter[str], int, float]:
    """Play rounds until so many kills are done, or so much time has passed.

    Returns
    -------
    tuple
        Kills by kind, faults by kind, rounds, seconds.
    """
    done: collections.Counter[str] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()
    began, number = time.monotonic(), 0
    while done.total() < kills and time.monotonic() - began < seconds:
        a_round = kind(folder / f"r{number}", random.Random(f"{seed} {number}"))
        bad = a_round.play()
        done += a_round.kills
        faults += bad
        number += 1
        print(
            f"round {number}: {a_round}, {a_round.kills.total()} kills, "
            f"{done.total()} in all, {time.monotonic() - began:.0f} s"
            + (f", FAULTS {dict(bad)} kept in {a_round.folder}" if bad else ""),
            flush=True,
        )
    return done, faults, number, time.monotonic() - began


def main() -> int:
    """Play, and print the table."""
    parser = argparse.ArgumentParser(description=bench.chaos.__doc__)
    parser.add_argument("backend", choices=("local", "slurm", "disks"))
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--tasks", type=int, default=0, help="of one large job")
    options = parser.parse_args()
    if options.tasks and options.backend == "disks":
        parser.error("--tasks: the small disks of this kind have no room for more")
    warnings.simplefilter("ignore")
    os.chdir("/")
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(options.keep))
        kind: Callable[[Path, random.Random], Round] = LocalRound
        if options.backend == "disks":
            each = itertools.cycle(itertools.product(WHICH, HOW))
            kind = lambda folder, rng: DiskRound(folder, rng, *next(each))  # noqa: E731
        if options.backend == "slurm":
            kind = SlurmRound
            stack.enter_context(cluster())
        if options.tasks:
            kind = _large(SlurmRound if options.backend == "slurm" else LocalRound, options.tasks)
            options.kills = 1  # one round
        done, faults, rounds, took = play(
            kind, folder, options.seed, options.kills, options.seconds
        )
    print(f"\n| {options.backend}, {rounds} jobs in {took / 60:.0f} min | |\n|---|---|")
    for name, count in sorted(done.items(), key=lambda item: -item[1]):
        print(f"| killed: {name} | {count} |")
    print(f"| **kills** | **{done.total()}** |")
    total = summed(faults)
    for name in FAULTS:
        print(f"| {name} | {total[name]} |")
    for name, count in sorted(faults.items()):
        print(f"{name}: {count}", file=sys.stderr)
    return int(bool(total.total()))


if __name__ == "__main__":
    raise SystemExit(main())
