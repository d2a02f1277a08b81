"""Java programs of an environment: jars from a Maven repository, by a hashed lock.

``images/<name>/jars.lock`` has a line per jar, as sha256sum writes it, with its path in the
repository, in the order of the class path. Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hub.environments import hashed_lock, maven_settings
from hub.environments.maven_settings import Repository
from hub.environments.toolchain import BuildError
from labkit.base import files

CLASS_PATH = "class-path"  # for `java @share/java/class-path <main class>`
_LINE = re.compile(r"([0-9a-f]{64})  ((?:[A-Za-z0-9_][A-Za-z0-9._+-]*/)+[A-Za-z0-9._+-]+\.jar)")
_AT_ONCE = 8
_ATTEMPTS = 3
_SHOWN = 5
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Jar:
    """A jar of a lock."""

    digest: str
    path: str


def read_lock(lock: Path) -> list[Jar]:
    """Return the jars of a lock, in the order of the class path.

    Raises
    ------
    BuildError
        A line cannot be read.
    """
    lines = hashed_lock.read(lock, _LINE, "<sha256>  <path of a jar>")
    return [Jar(line[1], line[2]) for line in lines]


def install(lock: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Bring a folder to exactly what a lock says, with a class path for Java.

    What is there with the right hash is kept, so that an interrupted call is taken up.

    Parameters
    ----------
    lock : Path
        ``jars.lock``.
    folder : Path
        Where the jars go, e.g. ``<env>/share/java``.
    say : callable
        Is told, in a few words, what is being done.

    Raises
    ------
    BuildError
        The lock cannot be read, or jars cannot be had; the text names them.
    """
    jars = read_lock(lock)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {folder / jar.path for jar in jars}
    for file in list(folder.rglob("*")):
        if file.is_file() and file not in wanted:
            file.unlink()
    missing = [jar for jar in jars if _digest(folder / jar.path) != jar.digest]
    if missing:
        repository = maven_settings.read()
        say(f"fetching {len(missing)} of {len(jars)} jars from {_shown(repository.url)}")
        failed = _fetch_all(repository, missing, folder)
        if failed:
            raise BuildError(
                f"{len(failed)} of {len(missing)} jars could not be fetched; what was fetched "
                "stays, so call again when the repository answers (LABHUB_MAVEN names another)\n"
                + "\n".join(f"    {text}" for text in failed[:_SHOWN])
            )
    quoted = ":".join(str(folder / jar.path) for jar in jars)
    quoted = quoted.replace("\\", "\\\\").replace('"', '\\"')
    files.write_atomic(folder / CLASS_PATH, f'-cp "{quoted}"\n')


def _fetch_all(repository: Repository, jars: list[Jar], folder: Path) -> list[str]:
    stop = threading.Event()
    proxy = repository.proxy
    # Without a proxy of Maven's own urllib goes by the process' variables.
    handlers = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    opener = urllib.request.build_opener(*handlers)

    def one(jar: Jar) -> str:
        if stop.is_set():
            return ""
        return _fetch(opener, f"{repository.url}/{jar.path}", folder / jar.path, jar.digest)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            return [text for text in pool.map(one, jars) if text]
        except BaseException:
            stop.set()  # Ctrl-C waits for eight jars, not for all
            raise


def _fetch(opener: urllib.request.OpenerDirector, url: str, target: Path, digest: str) -> str:
    """Fetch one file and prove its SHA-256; return what is wrong, or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    wrong = ""
    for attempt in range(_ATTEMPTS):
        try:
            with (
                opener.open(_request(url), timeout=_TIMEOUT) as answer,
                part.open("wb") as file,
            ):
                shutil.copyfileobj(answer, file, 1 << 20)
        except urllib.error.HTTPError as error:
            wrong = f"{target.name}: {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            wrong = f"{target.name}: {getattr(error, 'reason', error)}"
        else:
            actual = _digest(part)
            if actual == digest:
                part.replace(target)
                return ""
            wrong = f"{target.name}: is not what the lock says (SHA-256 {actual})"
        if attempt + 1 < _ATTEMPTS:
            time.sleep(2**attempt)
    part.unlink(missing_ok=True)
    return wrong


def _request(url: str) -> urllib.request.Request:
    """Take the user and password out of the administrator's address: urllib does not."""
    match = re.fullmatch(r"(https?://)([^@/]*)@(.*)", url)
    if not match:
        return urllib.request.Request(url)  # noqa: S310 -- the administrator's
    word = base64.b64encode(urllib.parse.unquote(match[2]).encode()).decode()
    headers = {"Authorization": f"Basic {word}"}
    return urllib.request.Request(match[1] + match[3], headers=headers)  # noqa: S310


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _shown(url: str) -> str:
    """Return an address without the password that it may carry."""
    return re.sub(r"//[^@/]*@", "//", url)
