"""Published datasets against cellxgene-gateway (PyPI): the same files, the same CellxGene.

Both in one run, by turns: ``python -m bench.catalogue [--rounds 3] [--cells 20000]
[--skip-pictures]``. Needs LABHUB_ENVS with ``cellxgene``, chromium, and PyPI once
(``--gateway FOLDER`` keeps what it brings). cellxgene-gateway has no login and no groups, so
our app is asked without the portal's gate, with its headers. Cold is the first opening after a
start of the service; ours is measured with and without the answers that are kept beside the
data when it is published.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
from playwright.sync_api import Browser, sync_playwright

from bench.catalogue_targets import GATEWAY, Both, Place, gateway
from bench.common import machine, spread
from labkit.viewers.cellxgene.memory import limit
from tests.browser.cells import WEBGL, colours_drawn
from tests.conftest import CHROMIUM

PEOPLE = 20
_ASSET = re.compile(r'(?:src|href)="(static/[^"]+)"')


# -- the first picture ------------------------------------------------------------------------


def first_picture(browser: Browser, place: Place, dataset: int) -> float:
    """Return the seconds from the click to cells on the screen, in a browser that knows nothing."""
    context = browser.new_context(extra_http_headers=place.headers)
    page = context.new_page()
    begin = time.perf_counter()
    page.goto(place.url(dataset), wait_until="commit")
    try:
        while time.perf_counter() - begin < 120:
            graph = page.locator("[data-testid=layout-graph]")
            with contextlib.suppress(Exception):  # the page may be reloading itself
                if graph.count() and colours_drawn(page)[0] > 2000:
                    return time.perf_counter() - begin
            page.wait_for_timeout(30)
        raise RuntimeError(f"{place.name} shows no cells")
    finally:
        context.close()


def pictures(both: Both, rounds: int) -> None:
    """Print the time to the first picture, cold and warm."""
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(WEBGL))
        for turn in range(rounds + 1):
            for start in (both.ours, lambda: both.ours(kept=False), both.other):
                place = start()
                try:
                    times = [first_picture(browser, place, turn % both.datasets) for _ in range(2)]
                finally:
                    place.stop()
                print(place.name, "first picture", *(f"{one:.2f}" for one in times), flush=True)
                if turn:  # the first warms the machine's file cache
                    cold.setdefault(place.name, []).append(times[0])
                    warm.setdefault(place.name, []).append(times[1])
        browser.close()
    print("\n| first picture | cold | warm |\n|---|---|---|")
    for name in cold:
        print(f"| {name} | {spread(cold[name])} | {spread(warm[name])} |")


# -- requests ---------------------------------------------------------------------------------


async def _ready(session: aiohttp.ClientSession, place: Place, dataset: int) -> None:
    """Open a dataset as its page does, until CellxGene answers."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        async with session.get(place.url(dataset)) as answer:
            text = await answer.text()
        if "window.CELLXGENE" in text:
            async with session.get(f"{place.url(dataset)}api/v0.2/data/var?nothing") as answer:
                await answer.read()
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{place.name} does not open data{dataset}")


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} for {url}: {body[:200]!r}")
        return body


async def open_page(session: aiohttp.ClientSession, place: Place, dataset: int) -> float:
    """Do what one browser does until the first picture; return the seconds."""
    begin = time.perf_counter()
    root = place.url(dataset)
    await _ready(session, place, dataset)
    index = (await _get(session, root)).decode()
    await asyncio.gather(*(_get(session, root + path) for path in _ASSET.findall(index)))
    api = f"{root}api/v0.2/"
    names = ("config", "schema", "colors")
    _, schema, _ = await asyncio.gather(*(_get(session, api + name) for name in names))
    described = json.loads(schema)["schema"]
    layouts = [one["name"] for one in described["layout"]["obs"]]
    columns = [
        one["name"]
        for one in described["annotations"]["obs"]["columns"]
        if one["name"] != described["annotations"]["obs"]["index"]
    ]
    wanted = [f"layout/obs?layout-name={quote(name)}" for name in layouts]
    wanted += [f"annotations/obs?annotation-name={quote(name)}" for name in columns]
    await asyncio.gather(*(_get(session, api + path) for path in wanted))
    return time.perf_counter() - begin


def session_for(place: Place) -> aiohttp.ClientSession:
    """Return a session with the six connections of a browser."""
    return aiohttp.ClientSession(
        headers={**place.headers, "Accept-Encoding": "gzip", "Accept": "text/html,*/*"},
        connector=aiohttp.TCPConnector(limit_per_host=6),
        timeout=aiohttp.ClientTimeout(total=300),
    )


async def crowd(place: Place, dataset: int) -> list[float]:
    """Let people open one dataset at the same moment; return what each waited."""
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session_for(place)) for _ in range(PEOPLE)]
        return list(await asyncio.gather(*(open_page(one, place, dataset) for one in sessions)))


async def rate(place: Place, seconds: float) -> float:
    """Return the answers per second of what a page asks for, eight requests at a time."""
    async with session_for(place) as one, session_for(place) as two:
        await open_page(one, place, 0)
        api = f"{place.url(0)}api/v0.2/"
        paths = ("schema", "layout/obs?layout-name=umap", "annotations/obs?annotation-name=kind")
        end, count = time.perf_counter() + seconds, 0

        async def work(session: aiohttp.ClientSession, number: int) -> None:
            nonlocal count
            while time.perf_counter() < end:
                await _get(session, api + paths[number % len(paths)])
                count += 1
                number += 1

        begin = time.perf_counter()
        await asyncio.gather(*(work(one if i % 2 else two, i) for i in range(8)))
        return count / (time.perf_counter() - begin)


async def genes(place: Place, seconds: float) -> float:
    """Return the answers per second for genes that nobody has asked for before."""
    async with session_for(place) as session:
        await open_page(session, place, 0)
        api = f"{place.url(0)}api/v0.2/"
        schema = json.loads(await _get(session, f"{api}schema"))["schema"]
        index = schema["annotations"]["var"]["index"]
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            await _get(session, f"{api}data/var?var:{index}=gene{count}")
            count += 1
        return count / (time.perf_counter() - begin)


async def all_of_them(place: Place, datasets: int) -> tuple[float, int]:
    """Open all datasets, one after the other; return the seconds and the memory of all."""
    async with session_for(place) as session:
        begin = time.perf_counter()
        for i in range(datasets):
            await open_page(session, place, i)
        wall = time.perf_counter() - begin
        for i in range(datasets):  # every viewer has loaded its data
            await _get(session, f"{place.url(i)}api/v0.2/schema?all")
        return wall, place.memory()


def requests(both: Both, rounds: int) -> None:
    """Print rates, the crowd, and the memory of all datasets at once."""
    rows: dict[str, dict[str, list[float]]] = {}
    for turn in range(rounds):
        for start in (both.ours, both.other):
            # Memory hardly differs from turn to turn, and all datasets take a minute to open.
            for measure in (_loads, _memory) if turn == 0 else (_loads,):
                place = start()
                try:
                    for what, value in measure(place, both.datasets):
                        rows.setdefault(place.name, {}).setdefault(what, []).append(value)
                except (RuntimeError, TimeoutError, aiohttp.ClientError) as error:
                    print(f"{place.name}: {type(error).__name__} {error}", flush=True)
                finally:
                    place.stop()
    columns = [*dict.fromkeys(what for found in rows.values() for what in found)]
    print(f"\n| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, found in rows.items():
        cells = [_cell(what, found[what]) if what in found else "failed" for what in columns]
        print(f"| {name} | {' | '.join(cells)} |")


def _cell(what: str, values: list[float]) -> str:
    if what.endswith("/s"):
        return f"{statistics.median(values):.0f}"
    return f"{statistics.median(values) / 1e9:.2f} GB" if "memory" in what else spread(values)


def _loads(place: Place, _: int) -> Iterator[tuple[str, float]]:
    yield f"{PEOPLE} at once, cold: last", max(asyncio.run(crowd(place, 1)))
    times = asyncio.run(crowd(place, 1))
    yield "warm: median", statistics.median(times)
    yield "warm: last", max(times)
    yield "page requests/s", asyncio.run(rate(place, 5))
    yield "new genes/s", asyncio.run(genes(place, 5))


def _memory(place: Place, datasets: int) -> Iterator[tuple[str, float]]:
    wall, memory = asyncio.run(all_of_them(place, datasets))
    yield f"{datasets} datasets opened in", wall
    yield "their memory", memory


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=3_000)
    parser.add_argument("--datasets", type=int, default=10)
    parser.add_argument("--gateway", type=Path, default=None)
    parser.add_argument("--skip-pictures", action="store_true")
    arguments = parser.parse_args()
    begin = time.monotonic()
    print(machine(), f"memory limit {limit() / (1 << 30):.0f} GiB")
    shape = f"{arguments.cells:,} cells x {arguments.genes:,} genes"
    print(f"{arguments.datasets} datasets of {shape}; {GATEWAY}")
    folder = Path(tempfile.mkdtemp(prefix="lhb-"))
    try:
        with gateway(arguments.gateway) as place:
            both = Both(folder, place, arguments.datasets)
            both.publish(arguments.cells, arguments.genes)
            print(f"published after {time.monotonic() - begin:.0f} s", flush=True)
            if not arguments.skip_pictures:
                pictures(both, arguments.rounds)
            requests(both, arguments.rounds)
        print(f"\nIt took {time.monotonic() - begin:.0f} s.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
