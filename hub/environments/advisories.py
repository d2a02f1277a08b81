"""Known holes in what the environments are made of: a floor of versions, and OSV's advisories.

OSV (https://osv.dev) knows the advisories of PyPI, npm and Maven under one address. The few sources
that are compiled here (``sources.lock``) are not asked about.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Below these a known hole is open; looked through on the day.
FLOOR_DATE = "2026-11-30"
FLOOR = {
    "jupyterhub": "5.5.1",
    "jupyter-server": "2.18.0",
    "jupyter-server-proxy": "4.2.0",
    "jupyter-rsession-proxy": "2.5.1",
    "oauthenticator": "17.4.0",
    "jupyterhub-nativeauthenticator": "1.3.0",
    "jupyter-remote-desktop-proxy": "3.0.1",
    "label-studio": "1.16.0",
    "distributed": "2024.8.3",
}
OSV = "https://api.osv.dev"
_AT_ONCE = 500  # packages in one question; OSV takes 1,000
_TIMEOUT = 30.0  # seconds for one answer
_LARGEST = 32 << 20  # bytes of one answer
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_JAR = re.compile(r"^[0-9a-f]{64}\s+(\S+)/([^/\s]+)/([^/\s]+)/[^/\s]+\.jar$", re.MULTILINE)


class NotAskedError(Exception):
    """OSV does not answer; the text says why."""


@dataclass(frozen=True, order=True)
class Package:
    """One locked package.

    Attributes
    ----------
    ecosystem : str
        As OSV names it: PyPI, npm, Maven.
    name, version : str
        Which one.
    """

    ecosystem: str
    name: str
    version: str


@dataclass(frozen=True)
class Advisory:
    """One known hole in a locked package.

    Attributes
    ----------
    id : str
        The advisory's, such as ``GHSA-...``.
    package : Package
        What has the hole.
    locks : tuple of str
        The lock files that name it.
    summary : str
        One sentence.
    fixed : tuple of str
        Versions that close it.
    """

    id: str
    package: Package
    locks: tuple[str, ...]
    summary: str
    fixed: tuple[str, ...]


def packages_in(lock: Path) -> set[Package]:
    """Return what one lock file names; the kind of file is known by its name."""
    text = lock.read_text(encoding="utf-8")
    match lock.name:
        case "requirements.lock":
            names = ((re.sub(r"[-_.]+", "-", n).lower(), v) for n, v in _PINNED.findall(text))
            return {Package("PyPI", *pair) for pair in names}
        case "package-lock.json":
            return set(_of_npm(json.loads(text)))
        case "jars.lock":
            coordinates = _JAR.findall(text)
            return {Package("Maven", f"{g.replace('/', '.')}:{a}", v) for g, a, v in coordinates}
    raise ValueError(f"{lock} is no lock file")


def _of_npm(lock: dict[str, Any]) -> Iterator[Package]:
    for place, entry in lock["packages"].items():
        name = place.rpartition("node_modules/")[2]
        if name and "version" in entry:
            yield Package("npm", entry.get("name", name), entry["version"])


def locks(images: Path) -> list[Path]:
    """Return the lock files of the environments that OSV can be asked about."""
    names = ("requirements.lock", "package-lock.json", "jars.lock")
    return sorted(file for name in names for file in images.glob(f"*/{name}"))


def ask(images: Path, address: str = OSV) -> tuple[int, list[Advisory]]:
    """Ask OSV about everything that is locked.

    Parameters
    ----------
    images : Path
        The folder with the environments' lock files.
    address : str
        OSV's.

    Returns
    -------
    int
        How many packages were asked about.
    list of Advisory
        Those that have a hole.

    Raises
    ------
    NotAskedError
        OSV cannot be reached, or answers what is none.
    """
    named_in: dict[Package, list[str]] = {}
    for lock in locks(images):
        for package in packages_in(lock):
            named_in.setdefault(package, []).append(f"{lock.parent.name}/{lock.name}")
    packages = sorted(named_in)
    holes: list[tuple[Package, str]] = []
    try:
        for start in range(0, len(packages), _AT_ONCE):
            holes += _holes(packages[start : start + _AT_ONCE], address)
        ids = sorted({one for _, one in holes})
        with ThreadPoolExecutor(8) as pool:
            details = dict(zip(ids, pool.map(lambda one: _detail(one, address), ids), strict=True))
        return len(packages), [
            Advisory(
                one,
                package,
                tuple(named_in[package]),
                str(details[one].get("summary") or details[one].get("details", ""))[:200],
                tuple(_fixed(details[one], package)),
            )
            for package, one in holes
            if not details[one].get("withdrawn")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "reason", None) or error
        raise NotAskedError(f"{type(error).__name__}: {reason}") from error


def _holes(packages: list[Package], address: str) -> list[tuple[Package, str]]:
    """Return the advisories of some packages, by their names alone."""
    holes: list[tuple[Package, str]] = []
    waiting: list[tuple[Package, str]] = [(package, "") for package in packages]
    while waiting:  # an answer may come in pages
        queries = [
            {
                "package": {"name": one.name, "ecosystem": one.ecosystem},
                "version": one.version,
                **({"page_token": page} if page else {}),
            }
            for one, page in waiting
        ]
        results = _fetch(f"{address}/v1/querybatch", {"queries": queries})["results"]
        if len(results) != len(waiting):
            raise ValueError("OSV answered another question")
        following = []
        for (package, _), result in zip(waiting, results, strict=True):
            holes += [(package, str(hole["id"])) for hole in result.get("vulns", ())]
            if result.get("next_page_token"):
                following.append((package, str(result["next_page_token"])))
        waiting = following
    return holes


def _detail(advisory: str, address: str) -> dict[str, Any]:
    return _fetch(f"{address}/v1/vulns/{quote(advisory, safe='')}")


def _fixed(detail: dict[str, Any], package: Package) -> Iterable[str]:
    versions = {
        str(event["fixed"])
        for affected in detail.get("affected", ())
        if affected.get("package", {}).get("name", "").lower() == package.name.lower()
        for span in affected.get("ranges", ())
        if span.get("type") != "GIT"
        for event in span.get("events", ())
        if "fixed" in event
    }
    return sorted(versions)


def _fetch(url: str, body: object = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - https, or a test's own
        url, data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        content = json.loads(answer.read(_LARGEST))
    if not isinstance(content, dict):
        raise ValueError("OSV answered no object")
    return content
