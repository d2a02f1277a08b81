"""Fetch the inputs of a task on its node: several at once, shared ones once per node.

It is a program, run by the worker with two files: what is wanted, and where the answer goes.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.storage import objects
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.client import asking
from labkit.storage.errors import AddressError, StorageError

_AT_ONCE = 8
_LOCK_TIMEOUT = 4 * 3600.0  # seconds; another task of this node may fetch a large reference
_UNUSED = 7 * 86400.0  # seconds after which what is shared is removed


def fetch_all(wanted: Sequence[Mapping[str, Any]], cache: Path) -> dict[str, str]:
    """Fetch objects to files; the files appear when they are whole and were checked.

    Parameters
    ----------
    wanted : sequence of mapping
        ``address``, ``target``, and ``shared``: whether other tasks need it, too.
    cache : Path
        Where shared ones are kept on this node; of this account alone.

    Returns
    -------
    dict
        Address -> SHA-256 of what was fetched, as hex.

    Raises
    ------
    StorageError
        One is not there, may not be read, or was replaced meanwhile.
    """
    own = _own(cache)
    if own:
        _tidy(cache)

    def one(file: Mapping[str, Any]) -> str:
        address, target = parse(file["address"]), Path(file["target"])
        if not isinstance(address, ObjectAddress) or address.is_folder:
            raise AddressError(f"{file['address']} is no object: write s3://bucket/key.")
        with asking(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if file["shared"] and own:
            return _shared(address, target, cache)
        return objects.fetch(address, target)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(one, wanted))
    return {file["address"]: digest for file, digest in zip(wanted, digests, strict=True)}


def _shared(address: ObjectAddress, target: Path, cache: Path) -> str:
    """Link what this node has already of this very version, else fetch it for all."""
    entry = objects.look(address)
    identity = f"{address}\0{entry.version}\0{entry.size}\0{entry.changed}"
    place = cache / sha256(identity.encode()).hexdigest()
    digest = place / "sha256"
    with files.locked(cache / f"{place.name}.lock", _LOCK_TIMEOUT, str(address)):
        if not digest.exists():
            place.mkdir(exist_ok=True)
            content = objects.fetch(address, place / "content")
            if objects.look(address).version != entry.version:
                shutil.rmtree(place)
                raise StorageError(f"{address} was replaced while it was fetched. Try again.")
            (place / "content").chmod(0o444)  # a task that writes into it would change others'
            files.write_atomic(digest, content.encode())
        os.utime(place)
        # A link of its own: what is removed here stays with whoever uses it.
        os.link(place / "content", target)
        return digest.read_text(encoding="ascii")


def _own(cache: Path) -> bool:
    """Make the folder for this account alone; False where somebody else has that name."""
    with suppress(FileExistsError):
        cache.mkdir(mode=0o700)
    there = cache.lstat()
    return (
        stat.S_ISDIR(there.st_mode)
        and there.st_uid == os.geteuid()
        and not stat.S_IMODE(there.st_mode) & 0o077
    )


def _tidy(cache: Path) -> None:
    """Remove what nobody has asked for in a week."""
    for place in cache.iterdir():
        with suppress(OSError):
            if place.suffix != ".lock" and place.stat().st_mtime < time.time() - _UNUSED:
                with files.locked(cache / f"{place.name}.lock", 0.0, str(place)):
                    shutil.rmtree(place, ignore_errors=True)


def main(words: Sequence[str]) -> int:
    """Fetch what a file names, and write the digests, or the error, into another.

    Parameters
    ----------
    words : sequence of str
        The two files.
    """
    wanted = json.loads(Path(words[0]).read_text(encoding="utf-8"))
    try:
        told: dict[str, Any] = {"digests": fetch_all(wanted["files"], Path(wanted["cache"]))}
    except (StorageError, OSError, files.LockTimeoutError) as error:
        told = {"error": str(error)}
    files.write_atomic(Path(words[1]), json.dumps(told).encode())
    return 1 if "error" in told else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
