"""Programs of an environment that no registry has built: compiled from a source by a hashed lock.

``images/<name>/sources.lock`` has a line per source, as sha256sum writes it, with the path of its
package in a crates registry; ``images/<name>/build`` compiles the unpacked sources into the
environment. cargo, the registry's own client, fetches them: its configuration says from where.
Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub.environments import hashed_lock
from hub.environments.toolchain import BuildError

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_NAME})/\2-([0-9][A-Za-z0-9.+-]*)\.crate")
_MANIFEST = """\
[package]
name = "labhub-sources"
version = "0.0.0"
edition = "2018"

[dependencies]
{name} = "={version}"
"""


@dataclass(frozen=True)
class Source:
    """A source of a lock."""

    digest: str
    name: str
    version: str

    @property
    def package(self) -> str:
        """The file that cargo keeps it in."""
        return f"{self.name}-{self.version}.crate"


def read_lock(lock: Path) -> list[Source]:
    """Return the sources of a lock.

    Raises
    ------
    BuildError
        A line cannot be read.
    """
    lines = hashed_lock.read(lock, _LINE, "<sha256>  <name>/<name>-<version>.crate")
    return [Source(line[1], line[2], line[3]) for line in lines]


def packages_missing() -> list[str]:
    """Return the system package that brings cargo, where no cargo is installed.

    One of any origin will do, so this is not in apt.txt, and the packages' names differ: the cargo
    of Debian 12 copies a registry's whole index before it fetches one source.
    """
    if cargo():
        return []
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    return ["cargo-web" if re.search(r'(?m)^VERSION_ID="?12"?$', release) else "cargo"]


def cargo() -> str | None:
    """Return the program cargo: on the path, or where rustup puts it."""
    cargo = shutil.which("cargo")
    return cargo or shutil.which("cargo", path=str(_cargo_home() / "bin"))


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
        There is no cargo; or a source cannot be had, or is not what the lock says.
    """
    with tempfile.TemporaryDirectory(prefix="labhub-sources-") as name:
        folder = Path(name)
        for source in read_lock(lock):
            say(f"fetching the source of {source.name} {source.version}")
            unpack(_fetch(source, run), folder)
        say("compiling")
        run(lock.with_name("build"), folder, environment, cwd=folder)


def _fetch(source: Source, run: Callable[..., None]) -> Path:
    """Let cargo fetch a source; return its package in cargo's cache, proved."""
    program = cargo()
    if not program:
        hint = f"apt-get install -y {' '.join(packages_missing())}"
        raise BuildError(f"fetching {source.name} needs cargo, which is not installed: {hint}")
    with tempfile.TemporaryDirectory(prefix="labhub-cargo-") as name:
        project = Path(name)
        (project / "src").mkdir()
        (project / "src" / "lib.rs").touch()
        manifest = _MANIFEST.format(name=source.name, version=source.version)
        (project / "Cargo.toml").write_text(manifest)
        run(program, "fetch", cwd=project)
    digests = []
    for package in sorted(_cargo_home().glob(f"registry/cache/*/{source.package}")):
        digests.append(hashlib.sha256(package.read_bytes()).hexdigest())
        if digests[-1] == source.digest:
            return package
    if digests:
        wrong = f"is not what the lock says (SHA-256 {digests[-1]})"
    else:
        cache = _cargo_home() / "registry"
        wrong = f"is not in cargo's cache {cache}; a folder in place of a registry cannot be used"
    raise BuildError(f"{source.package}: {wrong}")


def _cargo_home() -> Path:
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def unpack(package: Path, folder: Path) -> None:
    """Unpack the files of a source, below the folder and nowhere else.

    Parameters
    ----------
    package : Path
        The archive.
    folder : Path
        Where its files go.

    Raises
    ------
    BuildError
        It holds a link, a device or a path that leads elsewhere.
    """
    with tarfile.open(package) as archive:
        files = [entry for entry in archive.getmembers() if not entry.isdir()]
        for entry in files:
            if not entry.isfile() or ".." in Path(entry.name).parts or entry.name.startswith("/"):
                raise BuildError(f"{package.name} holds {entry.name!r}, which is not unpacked")
        archive.extractall(folder, files)  # noqa: S202 -- each was looked at
