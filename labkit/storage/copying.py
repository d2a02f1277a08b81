"""Copy files and objects, one or all of a folder, several at once, with progress and digests."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from labkit.storage import objects
from labkit.storage.address import Address, ObjectAddress, parse
from labkit.storage.client import asking, client
from labkit.storage.entry import Entry
from labkit.storage.errors import AddressError, NotFoundError
from labkit.storage.objects import Advance

_AT_ONCE = 8


@dataclass(frozen=True)
class Progress:
    """How far a copy has come.

    Attributes
    ----------
    files, files_done : int
        Files of all, and those that are copied and checked.
    size, size_done : int
        Bytes of all, and those that have been moved.
    """

    files: int
    size: int
    files_done: int = 0
    size_done: int = 0


Tell = Callable[[Progress], None]


def copy(
    source: str | os.PathLike[str], target: str | os.PathLike[str], progress: Tell | None = None
) -> Progress:
    """Copy a file or object, or all of a folder, between disk and S3 or within them.

    Each file is whole, and has the content that was read, or it does not appear; of a folder some
    may be there after an error. What is there already is replaced.

    Parameters
    ----------
    source : str or path
        A path or ``s3://bucket/key``; a folder is all that is below it, and of S3 ends with ``/``.
    target : str or path
        Where to. What ends with ``/``, or is a folder, gets the source's files by their names.
    progress : callable, optional
        Gets a :class:`Progress` now and then, from any thread.

    Returns
    -------
    Progress
        What was copied.

    Raises
    ------
    StorageError
        The text says what, why, and what to do.

    Examples
    --------
    >>> storage.copy("s3://lab/plate1/", "plate1/")  # doctest: +SKIP
    """
    from_, to = parse(source), parse(target)
    pairs = list(_pairs(from_, to, into=os.fspath(target).endswith("/")))
    if not pairs:
        raise NotFoundError(f"There is nothing at {source}.")
    lock = threading.Lock()
    files, size = len(pairs), sum(entry.size for entry, _ in pairs)
    files_done = size_done = 0

    def add(count: int, moved: int) -> None:
        nonlocal files_done, size_done
        with lock:
            files_done, size_done = files_done + count, size_done + moved
            if progress is not None:
                progress(Progress(files, size, files_done, size_done))

    def one(entry: Entry, place: Address) -> None:
        copy_one(parse(entry.address), place, lambda moved: add(0, moved))
        add(1, 0)

    if len(pairs) == 1:
        one(*pairs[0])
        return Progress(files, size, files_done, size_done)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copies = [pool.submit(one, *pair) for pair in pairs]
        try:
            ended, _ = wait(copies, return_when=FIRST_EXCEPTION)
        finally:
            for waiting in copies:  # after an error, or Ctrl-C
                waiting.cancel()
    for ended_copy in ended:
        ended_copy.result()
    return Progress(files, size, files_done, size_done)


def copy_one(source: Address, target: Address, advance: Advance) -> None:
    """Copy one file or object.

    Parameters
    ----------
    source, target : Path or ObjectAddress
        From where, and where to: the thing itself, no folder.
    advance : callable
        Gets the number of bytes that have been moved since it was last called.

    Raises
    ------
    StorageError
        It cannot be read, written, or was changed meanwhile.
    """
    if isinstance(target, Path):
        with asking(target):
            target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path):
        if isinstance(target, Path):
            _copy_file(source, target, advance)
        else:
            objects.store(source, target, advance)
    elif isinstance(target, Path):
        objects.fetch(source, target, advance)
    else:
        entry = objects.look(source)
        with asking(f"{source} to {target}"):
            client("s3", source).copy(
                {"Bucket": source.bucket, "Key": source.key},
                target.bucket,
                target.key,
                ExtraArgs={"CopySourceIfMatch": f'"{entry.version}"'},
                Callback=advance,
            )


def _copy_file(source: Path, target: Path, advance: Advance) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with asking(source):
            shutil.copyfile(source, temporary)
        with asking(target):
            size = temporary.stat().st_size
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    advance(size)


def walk(folder: Path) -> Iterator[Entry]:
    """Return the files below a folder, in order; folders that are links are left out."""
    with asking(folder):
        for root, folders, names in os.walk(folder, onerror=_raise):
            folders.sort()
            for name in sorted(names):
                path = Path(root, name)
                if path.is_file():
                    yield file_entry(path)


def file_entry(path: Path) -> Entry:
    """Return a file's size, time and version.

    Raises
    ------
    OSError
        It is not there, or may not be read.
    """
    status = path.stat()
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return Entry(str(path), status.st_size, status.st_mtime, version)


def _raise(error: OSError) -> None:
    raise error


def _pairs(source: Address, target: Address, into: bool) -> Iterator[tuple[Entry, Address]]:
    """Return what is to be copied, and where to."""
    if isinstance(target, ObjectAddress):
        into = target.is_folder
    elif target.is_dir():
        into = True
    if isinstance(source, Path):
        if source.is_dir():
            for entry in walk(source):
                yield entry, _below(target, Path(entry.address).relative_to(source).as_posix())
            return
        with asking(source):
            yield file_entry(source), _below(target, source.name) if into else target
    elif source.is_folder:
        for entry in objects.pages(source):
            name = entry.address.removeprefix(str(source))
            if entry.is_folder or not name:  # a console's mark of an empty folder
                continue
            yield entry, _below(target, name)
    else:
        yield objects.look(source), _below(target, source.name) if into else target


def _below(target: Address, name: str) -> Address:
    """Return the place of a name below a folder; a key may be anything, also ``../x``."""
    if isinstance(target, ObjectAddress):
        return target.child(name)
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\0" in name or not relative.parts:
        raise AddressError(
            f"The key {name!r} would be written outside of {target}. Copy the objects that you "
            "want one by one."
        )
    return target / relative
