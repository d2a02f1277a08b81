"""References with their indices, made once: a folder per content, shared by all who may read it.

``<cache>/<first 32 digits of the SHA-256 of the uncompressed FASTA>/``::

    fasta/reference.fa, .fai, .dict
    bwa-mem2/reference.*       and so on, one folder per index (a *part*)
    <part>/made.json           its files with their sizes, and the tool's version

A part is made in a folder of its own and renamed when it is whole, so an interrupted maker
leaves nothing that looks finished, and the next one goes on with the parts that are missing. A
lock keeps two makers from the same work; where a disk knows no locks, or one is held for very
long, they do it twice and one wins. A *remote* store (a shared folder or ``s3://``) is asked
first and given what was made.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from . import objects, pipe, programs

FASTA = "fasta"
MADE = "made.json"
_DIGITS = 32
_BLOCK = 4 * 1024 * 1024
_LOCK_TIMEOUT = 3 * 3600.0  # seconds; an index of a large genome takes one hour
_PAUSE = 0.2  # seconds between two looks at a lock
_OLD = 7 * 24 * 3600.0  # seconds after which somebody's unfinished folder is rubbish

Tell = Callable[[str], None]


def key_of(digest: str) -> str:
    """Return the name of a content's folder."""
    return digest[:_DIGITS]


class Cache:
    """A folder of references on this machine, or on a disk that machines share.

    Parameters
    ----------
    folder : Path
        It is made where it is missing.
    remote : str
        Another store behind it: a folder, ``s3://bucket/prefix``, or empty.
    tell : callable
        Is told what is being done.
    """

    def __init__(self, folder: Path, remote: str = "", tell: Tell = lambda _: None) -> None:
        self.folder = folder
        self.remote = remote.rstrip("/")
        self.tell = tell

    def place(self, digest: str) -> Path:
        """Return the folder of a content, whether it is there or not."""
        return self.folder / key_of(digest)

    def fasta(self, digest: str) -> Path:
        """Return the place of the uncompressed FASTA."""
        return self.place(digest) / FASTA / "reference.fa"

    def prefix(self, digest: str, part: str) -> Path:
        """Return what the files of an index begin with."""
        return self.place(digest) / part / "reference"

    def has(self, digest: str, part: str) -> bool:
        """Whether a part is there, whole."""
        return _whole(self.place(digest) / part)

    def known_digest(self, source: str) -> str:
        """Return the digest of a FASTA that was read before and has not changed, or nothing."""
        try:
            return (self.folder / "digests" / identity(source)).read_text().strip()
        except OSError:
            return ""

    def add_fasta(self, source: str, tools: Any) -> str:
        """Copy a FASTA (plain or gzip) into the cache, with its .fai and .dict.

        Returns
        -------
        str
            The digest of its uncompressed content.

        Raises
        ------
        Failed
            It cannot be read, or is no FASTA.
        """
        digest = self.known_digest(source)
        if digest and (self.has(digest, FASTA) or self._fetch(digest, FASTA)):
            return digest
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(f"source-{identity(source)}", f"the reference {source}"):
            digest = self.known_digest(source)
            if digest and self.has(digest, FASTA):
                return digest
            with self._making() as made:
                self.tell(f"reading the reference {source}")
                digest = _copy(source, made / "reference.fa")
                if not self.has(digest, FASTA) and not self._fetch(digest, FASTA):
                    fasta = made / "reference.fa"
                    tools.run("index of the FASTA", ["samtools", "faidx", str(fasta)])
                    target = made / "reference.dict"
                    tools.run("dictionary", ["samtools", "dict", "-o", str(target), str(fasta)])
                    self._keep(digest, FASTA, made, {"samtools": tools.version("samtools")})
            _write(self.folder / "digests" / identity(source), digest + "\n")
        return digest

    def add_index(self, digest: str, aligner: str, preset: str, tools: Any, cpu: int) -> str:
        """Make an aligner's index, unless it is there or in the remote store; return its part."""
        part: str = programs.index_parts(aligner, preset)
        if self.get(digest, part):
            return part
        with self._locked(f"{key_of(digest)}-{part}", f"the index of {aligner}"):
            if self.has(digest, part):
                return part
            with self._making() as made:
                self.tell(f"making the index of {aligner}")
                began = time.monotonic()
                fasta, prefix = self.fasta(digest), made / "reference"
                argv = programs.index_argv(aligner, preset, fasta, prefix, cpu)
                tools.run(f"index of {aligner}", argv)
                missing = [
                    suffix
                    for suffix in programs.INDEX_FILES[aligner]
                    if not Path(f"{prefix}{suffix}").is_file()
                ]
                if missing:
                    text = f"{aligner} wrote no {', '.join(missing)}"
                    raise pipe.Failed(text, "CHECK")
                seconds = round(time.monotonic() - began, 1)
                versions = {aligner: tools.version(aligner)}
                self._keep(digest, part, made, {**versions, "seconds": seconds})
        return part

    def get(self, digest: str, part: str) -> bool:
        """Bring a part here from the remote store, once per node; whether it is here now."""
        if self.has(digest, part):
            return True
        if not self.remote:
            return False
        with self._locked(f"{key_of(digest)}-{part}", f"{part} of the reference"):
            return self.has(digest, part) or self._fetch(digest, part)

    # -- what is made, and where it goes -----------------------------------------------

    @contextlib.contextmanager
    def _making(self) -> Iterator[Path]:
        """Give a folder to make a part in, removed where it was not kept."""
        self._clean()
        made = self.folder / f".making-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
        made.mkdir(parents=True)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what makers that were killed long ago have left."""
        for path in self.folder.glob(".making-*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLD:
                    shutil.rmtree(path, ignore_errors=True)

    def _keep(self, digest: str, part: str, made: Path, about: dict[str, Any]) -> None:
        """Put a part that was made in its place, and into the remote store."""
        files = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        content = {"digest": digest, "files": files, "made": time.time(), **about}
        (made / MADE).write_text(json.dumps(content, indent=1) + "\n")
        self._place(digest, part, made)
        if self.remote:
            self._push(digest, part)

    def _place(self, digest: str, part: str, made: Path) -> None:
        target = self.place(digest) / part
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in made.iterdir():
            _sync(path)
        try:
            made.rename(target)
        except OSError:
            if _whole(target):  # somebody else was first
                return
            if not target.exists():
                raise
            target.rename(target.with_name(f".broken-{part}-{time.time_ns()}"))
            made.rename(target)

    def _fetch(self, digest: str, part: str) -> bool:
        """Copy a part from the remote store; whether it had it."""
        if not self.remote:
            return False
        address = f"{self.remote}/{key_of(digest)}/{part}"
        with self._making() as made:
            try:
                _get(objects, f"{address}/{MADE}", made / MADE)
            except FileNotFoundError:
                return False
            files = json.loads((made / MADE).read_text())["files"]
            total = sum(files.values())
            self.tell(f"fetching {part} of the reference ({total:,} bytes)")
            for name, size in files.items():
                if "/" in name:
                    raise pipe.Failed(
                        f"a part of the reference is named {name!r} in {address}/{MADE}", "CHECK"
                    )
                _get(objects, f"{address}/{name}", made / name)
                if (made / name).stat().st_size != size:
                    text = f"{name} has not the {size:,} bytes it was made with ({address})"
                    raise pipe.Failed(text, "CHECK")
            self._place(digest, part, made)
        return True

    def _push(self, digest: str, part: str) -> None:
        """Copy a part into the remote store; its list of files last, which makes it whole."""
        here = self.place(digest) / part
        address = f"{self.remote}/{key_of(digest)}/{part}"
        self.tell(f"keeping {part} of the reference in {self.remote}")
        names = [path.name for path in sorted(here.iterdir()) if path.name != MADE]
        for name in [*names, MADE]:
            if objects.is_object(address):
                objects.put(here / name, f"{address}/{name}")
                continue
            Path(address).mkdir(parents=True, exist_ok=True)
            temporary = Path(address) / f".{name}.{socket.gethostname()}.{os.getpid()}"
            shutil.copyfile(here / name, temporary)
            temporary.replace(Path(address) / name)

    @contextlib.contextmanager
    def _locked(self, name: str, what: str) -> Iterator[None]:
        """Hold a lock; the kernel releases it however its holder ends."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("a") as file:
            with contextlib.suppress(OSError):  # a disk without locks: the renames keep it right
                self._wait(file, what)
            yield

    def _wait(self, file: IO[str], what: str) -> None:
        """Take a lock, or go on without it in the end: who may read a cache can hold its locks."""
        end = time.monotonic() + _LOCK_TIMEOUT
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    self.tell(f"waiting for another job that makes {what} ({file.name})")
                    waiting = True
                if time.monotonic() > end:
                    hours = f"{_LOCK_TIMEOUT / 3600:.0f} hours"
                    self.tell(f"making {what} without waiting any longer than {hours}")
                    return
                time.sleep(_PAUSE)
            else:
                return


def _whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / MADE).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def node_folder(scratch: Path) -> Path:
    """Return the user's own folder for references on a node's scratch disk, made if need be.

    Raises
    ------
    Failed
        Somebody else has made a folder of that name there.
    """
    folder = scratch / f"labkit-references-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise pipe.Failed(f"{folder} is not a folder of yours alone", "STORAGE")
    return folder


def identity(source: str) -> str:
    """Return what stands for a file's content until it changes: place, size and time."""
    place = source if objects.is_object(source) else os.path.realpath(source)
    return hashlib.sha256(f"{place}\0{objects.version(source)}".encode()).hexdigest()[:_DIGITS]


def _copy(source: str, target: Path) -> str:
    """Write a FASTA uncompressed and return the digest of what was written."""
    digest = hashlib.sha256()
    try:
        with objects.open_bytes(source) as raw, target.open("wb") as out:
            stream: Any = raw
            if stream.peek(2)[:2] == b"\x1f\x8b":
                stream = gzip.GzipFile(fileobj=raw, mode="rb")
            block = stream.read(_BLOCK)
            if not block.startswith(b">"):
                raise pipe.Failed(f"no FASTA, it does not begin with '>': {source}", "INPUT")
            while block:
                digest.update(block)
                out.write(block)
                block = stream.read(_BLOCK)
    except EOFError:
        text = f"cut off, its gzip data ends in the middle: {source}"
        raise pipe.Failed(text, "INPUT") from None
    except gzip.BadGzipFile as error:
        raise pipe.Failed(f"damaged ({error}): {source}", "INPUT") from None
    return digest.hexdigest()


def _get(objects: Any, place: str, target: Path) -> None:
    if objects.is_object(place):
        objects.fetch(place, target)
    else:
        shutil.copyfile(place, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _sync(path: Path) -> None:
    """Bring a file to the disk: after a power cut a renamed folder must not hold empty files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
