"""Clients of S3 side by side: one large file, and many small ones, up and down.

All in one run, by turns, against one moto server: ``python -m bench.storage [--rounds 3]``. A
client that is not installed is left out. The CPU is the client's alone; the MB/s are bounded by the
server, which is Python: compare CPU seconds, not walls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BUCKET = "bench"
THREADS = 8
MB = 1 << 20
_OBSTORE = ("obstore", "obstore.store")
Work = Callable[[Path, str, bool], None]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _boto3(folder: Path, prefix: str, up: bool) -> None:
    import boto3

    client = boto3.client("s3")

    def one(name: str) -> None:
        if up:
            client.upload_file(str(folder / name), BUCKET, f"{prefix}/{name}")
        else:
            client.download_file(BUCKET, f"{prefix}/{name}", str(folder / name))

    _all(one)


def _boto3_plain(folder: Path, prefix: str, up: bool) -> None:
    """One request an object, without the transfer manager: as records are read and put."""
    import boto3
    from botocore.config import Config  # type: ignore[import-untyped]

    client = boto3.client("s3", config=Config(max_pool_connections=THREADS))

    def one(name: str) -> None:
        if up:
            client.put_object(
                Bucket=BUCKET, Key=f"{prefix}/{name}", Body=(folder / name).read_bytes()
            )
        else:
            body = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{name}")["Body"]
            (folder / name).write_bytes(body.read())

    _all(one)


def _labkit(folder: Path, prefix: str, up: bool) -> None:
    from labkit import storage

    there = f"s3://{BUCKET}/{prefix}/"
    storage.copy(f"{folder}/", there) if up else storage.copy(there, f"{folder}/")


def _s3fs(folder: Path, prefix: str, up: bool) -> None:
    import s3fs

    files = s3fs.S3FileSystem()
    if up:
        files.put(f"{folder}/", f"{BUCKET}/{prefix}/", recursive=True)
    else:
        files.get(f"{BUCKET}/{prefix}/", f"{folder}/", recursive=True)


def _obstore(folder: Path, prefix: str, up: bool) -> None:
    # A peer that none of our environments has: pip install it into one of your own.
    obstore, stores = (import_module(name) for name in _OBSTORE)
    store = stores.S3Store(
        BUCKET,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        region="us-east-1",
        client_options={"allow_http": True},
    )

    async def one(name: str, gate: asyncio.Semaphore) -> None:
        async with gate:
            if up:
                await obstore.put_async(store, f"{prefix}/{name}", folder / name)
            else:
                answer = await obstore.get_async(store, f"{prefix}/{name}")
                with (folder / name).open("wb") as file:
                    async for piece in answer.stream(8 * MB):
                        file.write(piece)

    async def every() -> None:
        gate = asyncio.Semaphore(THREADS)
        await asyncio.gather(*(one(name, gate) for name in _wanted()))

    asyncio.run(every())


def _aws(folder: Path, prefix: str, up: bool) -> None:
    here, there = f"{folder}/", f"s3://{BUCKET}/{prefix}/"
    both = [here, there] if up else [there, here]
    command = ["aws", "s3", "cp", "--recursive", "--only-show-errors", *both]
    subprocess.run(command, check=True)


CLIENTS: dict[str, Work] = {
    "labkit": _labkit,
    "boto3 (transfer)": _boto3,
    "boto3 (requests)": _boto3_plain,
    "s3fs": _s3fs,
    "obstore": _obstore,
    "aws-cli": _aws,
}
_NEEDS = {"labkit": "labkit.storage", "s3fs": "s3fs", "obstore": "obstore", "aws-cli": "awscli"}


def _wanted() -> list[str]:
    """Return the names of a case, which both ways need beforehand."""
    names: list[str] = json.loads(os.environ["BENCH_NAMES"])
    return names


def _all(one: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, _wanted()))


def _measured(client: str, folder: Path, prefix: str, up: bool, env: dict[str, str]) -> Any:
    """Run one transfer in a process of its own; return its wall and CPU seconds."""
    words = [client, str(folder), prefix, "up" if up else "down"]
    script = [sys.executable, "-m", "bench.storage", "--one", *words]
    done = subprocess.run(script, env=env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _one(client: str, folder: str, prefix: str, way: str) -> None:
    begin = time.perf_counter()
    CLIENTS[client](Path(folder), prefix, way == "up")
    wall = time.perf_counter() - begin
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([wall, sum(one.ru_utime + one.ru_stime for one in used)]))


def _case(title: str, count: int, size: int, rounds: int, env: dict[str, str]) -> None:
    clients = [name for name in CLIENTS if find_spec(_NEEDS.get(name, "boto3").split(".")[0])]
    print(f"\n{title}: client, CPU seconds up, down; MB/s up, down (medians of {rounds})")
    with tempfile.TemporaryDirectory(prefix="bench-storage-") as folder:
        source = Path(folder) / "source"
        source.mkdir()
        block = os.urandom(MB)
        for number in range(count):
            whole = block * max(1, size // MB)
            (source / f"{number:05}.bin").write_bytes(whole[:size])
        env = {**env, "BENCH_NAMES": json.dumps(_names(source))}
        times: dict[tuple[str, bool], list[list[float]]] = {}
        for turn in range(rounds):
            for client in clients:
                prefix = f"{client.split()[0]}-{turn}-{count}-{client[-2:-1]}"
                target = Path(folder) / "target"
                target.mkdir()
                for up, place in ((True, source), (False, target)):
                    got = _measured(client, place, prefix, up, env)
                    times.setdefault((client, up), []).append(got)
                if _names(target) != _names(source):
                    raise RuntimeError(f"{client} did not bring all files back")
                shutil.rmtree(target)
    for client in clients:
        cpu = [statistics.median(cpu for _, cpu in times[client, up]) for up in (True, False)]
        walls = [statistics.median(wall for wall, _ in times[client, up]) for up in (True, False)]
        speeds = "  ".join(f"{count * size / MB / wall:6.0f}" for wall in walls)
        print(f"  {client:18} {cpu[0]:6.2f} {cpu[1]:6.2f}   {speeds}", flush=True)


def main() -> None:
    """Run all clients that are installed, on both kinds of data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _one(*options.one)
        return
    import boto3

    from labkit.testing.moto import MotoServer

    with MotoServer() as server:
        env = {**os.environ, **server.environment}
        boto3.client("s3", **server.client_options).create_bucket(Bucket=BUCKET)
        _case("1 x 500 MB", 1, 500 * MB, options.rounds, env)
        _case("2,000 x 50 kB", 2000, 50_000, options.rounds, env)


if __name__ == "__main__":
    main()
