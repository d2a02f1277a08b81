"""Whether a tree that one person has left in /tmp is felt by others: their starts, and `down`.

Run as root, with and without the tree in the same run::

    python -m bench.shaped_trees --levels 3000 --files 1000000
"""

from __future__ import annotations

import argparse
import pwd
import statistics
import time

from bench.common import machine, spread
from hub.labfile.read import read
from hub.sandbox import remove_all, sandboxes_of
from hub.sandbox.instance import Instance, sandbox_key
from hub.state import trash
from hub.state.paths import Paths
from tests.support.portal import People, Portal, portal
from tests.support.shaped_trees import shape_as

GOAL = 1.2


def measure(
    people: tuple[str, str], starts: int, tree: tuple[int, int] | None
) -> tuple[list[float], float, str]:
    """Run one portal.

    Parameters
    ----------
    people : tuple of str
        Who shapes, and who starts servers.
    starts : int
        How many.
    tree : tuple of int, optional
        Nested folders and files; None: nothing is shaped.

    Returns
    -------
    times : list of float
        Seconds of each start of the other person.
    down : float
        Seconds to remove all sandboxes, with a shaped one among them.
    state : str
        What was still being deleted after the last start.
    """
    attacker, other = people
    with portal() as lab:
        paths = Paths(lab.state, lab.envs)
        bin_ = Instance.of(paths).trash
        _shaped_server(lab, paths, attacker, tree)
        lab.stop_server(attacker)
        times = []
        for _ in range(starts):
            began = time.perf_counter()
            lab.spawn(other)
            times.append(time.perf_counter() - began)
            lab.stop_server(other)
        left = len(trash.contents(bin_))
        while trash.contents(bin_):  # its disk work is no part of `down`
            time.sleep(0.5)
        _shaped_server(lab, paths, attacker, tree)
        lab.spawn(other)
        lab.stop("hub")
        began = time.perf_counter()
        remove_all(sandboxes_of(read(lab.state / "lab.yaml"), paths))
        down = time.perf_counter() - began
        while trash.contents(bin_):
            time.sleep(0.5)
    return times, down, f"{left} sandboxes' files were still being deleted after the last start"


def _shaped_server(lab: Portal, paths: Paths, who: str, tree: tuple[int, int] | None) -> None:
    lab.spawn(who)
    if tree is not None:
        account = pwd.getpwnam(who)
        key = sandbox_key(account.pw_uid, "")
        shape_as(account, Instance.of(paths).folder / key / "tmp", *tree)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", type=int, default=3000, help="folders in each other")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=8, help="of the other person")
    options = parser.parse_args()
    known = People()
    people = (known.add("shaper"), known.add("other"))
    try:
        plain, down, _ = measure(people, options.starts, None)
        shaped, down_shaped, state = measure(
            people, options.starts, (options.levels, options.files)
        )
    finally:
        known.remove_all()
    print(machine())
    print(f"{options.levels} nested folders, {options.files} files, {options.starts} starts\n")
    print("| | without | with the tree | ratio |")
    print("|---|---|---|---|")
    ratio = statistics.median(shaped) / statistics.median(plain)
    print(f"| another person's start | {spread(plain)} | {spread(shaped)} | {ratio:.2f} |")
    print(f"| `down` | {down:.2f} s | {down_shaped:.2f} s | {down_shaped / down:.2f} |")
    print(f"\n{state}. Goal: at most {GOAL}.")


if __name__ == "__main__":
    main()
