"""The portal against a bare JupyterHub with LocalProcessSpawner: same versions, same run.

Run as root on a quiet machine: ``python -m bench.portal [--users 50] [--rounds 9]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time

from bench.common import Bare, cpu_seconds, machine, percentile, pss, spread, start_all
from tests.support.portal import People, Portal


def spawn_seconds(portal: Portal, name: str, profile: str) -> float:
    """Return the seconds from asking for a server until it is ready."""
    portal.api("POST", f"/users/{name}")
    body = {} if isinstance(portal, Bare) else {"profile": profile}
    begin = time.perf_counter()
    answer = portal.api("POST", f"/users/{name}/server", json=body)
    while answer.status_code != 201:
        if answer.status_code >= 400:
            raise RuntimeError(answer.text)
        if portal.api("GET", f"/users/{name}").json()["servers"].get("", {}).get("ready"):
            break
        time.sleep(0.01)
    return time.perf_counter() - begin


def spawns(name: str, rounds: int) -> None:
    """Spawn to ready and memory: a stub and the real JupyterLab, by turns."""
    print("\n| spawn to ready | bare | Labhub | ratio |\n|---|---|---|---|")
    for profile in ("stub", "notebook"):
        times: dict[str, list[float]] = {"bare": [], "labhub": []}
        memory: dict[str, int] = {}
        with Bare(profile) as bare, Portal() as ours:
            for turn in range(rounds + 1):
                for label, portal in (("bare", bare), ("labhub", ours)):
                    seconds = spawn_seconds(portal, name, profile)
                    if turn:  # the first warms the disk cache
                        times[label].append(seconds)
                    if turn == rounds:
                        time.sleep(3)
                        memory[label] = pss([name])
                    portal.stop_server(name)
        ratio = statistics.median(times["labhub"]) / statistics.median(times["bare"])
        print(f"| {profile} | {spread(times['bare'])} | {spread(times['labhub'])} | {ratio:.2f} |")
        print(
            f"| {profile}: memory (PSS) | {memory['bare'] / 1e6:.0f} MB "
            f"| {memory['labhub'] / 1e6:.0f} MB | {memory['labhub'] / memory['bare']:.2f} |"
        )


def answers(portal: Portal, name: str) -> bool:
    """Return whether a user's server runs code."""
    with contextlib.suppress(RuntimeError, ValueError, KeyError):
        return portal.run(name, "print(1)").strip() == "1"
    return False


def crowd(portal: Portal, names: list[str]) -> list[str]:
    """Return one column: many servers at once, idle cost, restart of the hub."""
    column = []
    with portal:
        wall, failed, api = asyncio.run(start_all(portal, names))
        column += [
            f"{wall:.1f} s",
            str(failed),
            f"{percentile(api, 0.5) * 1e3:.0f} / {percentile(api, 0.95) * 1e3:.0f} ms",
        ]
        time.sleep(5)
        hub = portal.processes["hub"].pid
        before = cpu_seconds(hub)
        time.sleep(60)
        column.append(f"{(cpu_seconds(hub) - before) / 60 * 100:.1f} %")
        begin = time.perf_counter()
        portal.restart_hub()
        ready = time.perf_counter() - begin
        users = portal.api("GET", "/users?state=ready&limit=500").json()
        lost = len(names) - len(users)
        silent = sum(not answers(portal, name) for name in names)
        everybody = time.perf_counter() - begin
        column += [f"{ready:.1f} s", f"{lost}, {silent} silent", f"{everybody:.1f} s"]
    return column


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(machine())
    people = People()
    try:
        spawns(people.add("one"), arguments.rounds)
        names = [people.add(f"u{number}") for number in range(arguments.users)]
        bare, ours = crowd(Bare(), names), crowd(Portal(), names)
        print(f"\n| {arguments.users} stub servers | bare | Labhub |\n|---|---|---|")
        rows = (
            "all started at once",
            "of them failed",
            "hub API meanwhile, median / p95",
            "hub CPU while all are idle",
            "hub restart: until it answers",
            "servers lost",
            "until every server answered again",
        )
        for row, left, right in zip(rows, bare, ours, strict=True):
            print(f"| {row} | {left} | {right} |")
    finally:
        people.remove_all()


if __name__ == "__main__":
    main()
