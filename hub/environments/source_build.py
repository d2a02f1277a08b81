"""Programs of an environment that no registry has built: compiled from a source by a hashed lock.

``images/<name>/sources.lock`` has a line per source, as sha256sum writes it, with the path of its
package in a crates registry; ``images/<name>/build`` compiles the unpacked sources into the
environment. Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from hub.environments.maven import fetch
from hub.environments.toolchain import BuildError

CRATES = "https://static.crates.io/crates"  # cargo's own default
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_NAME}/{_NAME}-[0-9][A-Za-z0-9.+-]*\.crate)")


def read_lock(lock: Path) -> list[tuple[str, str]]:
    """Return digest and path of each source of a lock.

    Raises
    ------
    BuildError
        A line cannot be read.
    """
    found = []
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise BuildError(
                f"{lock}, line {number}: not '<sha256>  <name>/<name>-<version>.crate'"
            )
        found.append((match[1], match[2]))
    return found


def install(
    lock: Path, environment: Path, say: Callable[[str], None], run: Callable[..., None]
) -> None:
    """Fetch the sources of a lock, and let ``build`` beside it compile them.

    Parameters
    ----------
    lock : Path
        ``sources.lock``.
    environment : Path
        The environment that the programs go into.
    say : callable
        Is told, in a few words, what is being done.
    run : callable
        Runs a command: ``run(program, *arguments, cwd=folder)``.

    Raises
    ------
    BuildError
        A source cannot be had, or is not what the lock says.
    """
    base = os.environ.get("LABHUB_CRATES", CRATES).rstrip("/")
    with tempfile.TemporaryDirectory(prefix="labhub-sources-") as name:
        folder = Path(name)
        for digest, path in read_lock(lock):
            package = folder / Path(path).name
            say(f"fetching the source of {package.stem}")
            wrong = fetch(f"{base}/{path}", package, digest)
            if wrong:
                hint = "LABHUB_CRATES names another registry"
                raise BuildError(f"a source could not be fetched: {wrong} ({hint})")
            _unpack(package, folder)
        say("compiling")
        run(lock.with_name("build"), folder, environment, cwd=folder)


def _unpack(package: Path, folder: Path) -> None:
    """Unpack the files of a source, below the folder and nowhere else."""
    with tarfile.open(package) as archive:
        files = [entry for entry in archive.getmembers() if not entry.isdir()]
        for entry in files:
            if not entry.isfile() or ".." in Path(entry.name).parts or entry.name.startswith("/"):
                raise BuildError(f"{package.name} holds {entry.name!r}, which is not unpacked")
        archive.extractall(folder, files)  # noqa: S202 -- each was looked at
    package.unlink()
