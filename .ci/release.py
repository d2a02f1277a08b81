#!/usr/bin/env python3
"""Make a release: set the version and its date, build wheel and sdist, look into them.

    python .ci/release.py 0.2.0

Run it with the environment `dev`, in a clean checkout. It publishes nothing and commits nothing: it
says which commands do.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_UNRELEASED = re.compile(r"(?m)^## .*\(unreleased\)$")
# What has the version in it, and how: pyproject.toml is the one that counts.
PLACES = {
    "pyproject.toml": (r'(?m)^version = "(.*)"$', 'version = "{}"'),
    "CITATION.cff": (r"(?m)^version: (.*)$", "version: {}"),
    "labkit/server/data/labextension/package.json": (r'"version": "(.*)"', '"version": "{}"'),
}


class ReleaseError(Exception):
    """There can be no release; the text says why."""


def current(top: Path) -> str:
    """Return the version that the project says it is."""
    return str(tomllib.loads((top / "pyproject.toml").read_text())["project"]["version"])


def prepare(top: Path, version: str, today: datetime.date) -> None:
    """Write a version and its date into all files that have them.

    Parameters
    ----------
    top : Path
        The repository.
    version : str
        Of the release, e.g. ``0.2.0``.
    today : date
        Its date.

    Raises
    ------
    ReleaseError
        It is no version, or an older one; or CHANGELOG.md has nothing unreleased.
    """
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version: three numbers with dots are")
    if _numbers(version) < _numbers(current(top)):
        raise ReleaseError(f"{version} is older than {current(top)}, which the project is at")
    texts = {name: (top / name).read_text() for name in (*PLACES, "CHANGELOG.md")}
    if len(_UNRELEASED.findall(texts["CHANGELOG.md"])) != 1:
        raise ReleaseError("CHANGELOG.md must have one heading that ends with (unreleased)")
    heading = f"## {version} ({today})"
    texts["CHANGELOG.md"] = _UNRELEASED.sub(heading, texts["CHANGELOG.md"])
    for name, (pattern, template) in PLACES.items():
        texts[name], count = re.subn(pattern, template.format(version), texts[name])
        if count != 1:
            raise ReleaseError(f"{name} has {count} versions in it, not one")
    released = re.sub(r"(?m)^date-released: .*\n", "", texts["CITATION.cff"])
    texts["CITATION.cff"] = released.rstrip("\n") + f"\ndate-released: {today}\n"
    for name, text in texts.items():
        (top / name).write_text(text)


def build(top: Path, version: str, out: Path) -> list[Path]:
    """Build sdist and, from it, the wheel; return both when they hold what they must.

    Parameters
    ----------
    top : Path
        The repository.
    version : str
        That they must have.
    out : Path
        Where they go.

    Raises
    ------
    ReleaseError
        Nothing could be built, or a file is missing in what was.
    """
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(top)]
    if subprocess.run(command, check=False).returncode:
        raise ReleaseError("the package could not be built; see above")
    wheel = out / f"labhub-{version}-py3-none-any.whl"
    sdist = out / f"labhub-{version}.tar.gz"
    required = {f"labhub-{version}.dist-info/licenses/LICENSE", "labkit/__init__.py"}
    with zipfile.ZipFile(wheel) as archive:
        _require(wheel, required | {"labkit/py.typed"}, archive.namelist())
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        _require(sdist, {"LICENSE", "README.md", "labkit/__init__.py"}, names)
    return [wheel, sdist]


def _require(package: Path, required: set[str], names: list[str]) -> None:
    missing = sorted(required.difference(names))
    if missing:
        raise ReleaseError(f"{package.name} lacks {', '.join(missing)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _is_clean(top: Path) -> bool:
    command = ["git", "status", "--porcelain"]
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=True)
    return not done.stdout.strip()


def main() -> int:
    """Make the release that the command line names."""
    parser = argparse.ArgumentParser(description="Make a release.")
    parser.add_argument("version", help="e.g. 0.2.0")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where packages go (dist)")
    arguments = parser.parse_args()
    top = Path(__file__).resolve().parents[1]
    try:
        if not _is_clean(top):
            raise ReleaseError("there are changes that are not committed")
        prepare(top, arguments.version, datetime.datetime.now(datetime.UTC).date())
        packages = build(top, arguments.version, arguments.out)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"Built and looked into: {', '.join(str(package) for package in packages)}")
    print(f"Next: git commit -am 'Release {arguments.version}'; git tag v{arguments.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
