#!/usr/bin/env python3
"""Compile all lock files anew and show what would change; with --write, put them in place.

    .ci/renew_locks.py                 every environment: what would change
    .ci/renew_locks.py hub r --write   these two, for good

Packages come from where uv's, npm's and Maven's own settings say. Build and test before you commit:
a lock is a change like any other.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from hub.environments import advisories  # noqa: E402 - from this repository
from hub.environments.toolchain import environment, node_programs, uv_settings  # noqa: E402
from hub.state.paths import Paths  # noqa: E402

IMAGES = REPOSITORY / "images"
# What is compiled together with an environment's own list.
_TOGETHER = {"dev": ("hub", "notebook")}
# Built from one platform's wheels alone.
_ONE_PLATFORM = {"cellprofiler"}
_ORDER = ("uv", "hub", "notebook")  # others refer to these


def python_lock(name: str, folder: Path) -> Path:
    """Compile an environment's requirements.lock."""
    out = folder / "requirements.lock"
    image = IMAGES / name
    uv = shutil.which("uv") or str(Paths.from_environment().env_bin("uv", "uv"))
    words = [uv, "pip", "compile", "--quiet", "--python-version", "3.11", "--generate-hashes"]
    words += ["--no-header", "--no-annotate", "-o", str(out)]
    words += [] if name in _ONE_PLATFORM else ["--universal"]
    for option, file in (
        ("--override", "overrides.txt"),
        ("--build-constraints", "build-constraints.txt"),
    ):
        if (image / file).is_file():
            words += [option, str(image / file)]
    words += [str(IMAGES / one / "requirements.in") for one in (*_TOGETHER.get(name, ()), name)]
    env = {**environment(), **uv_settings(Path(sys.executable))}
    subprocess.run(words, check=True, cwd=image, env=env)
    return out


def npm_lock(name: str, folder: Path) -> Path:
    """Resolve an environment's package-lock.json; nothing is installed."""
    node, npm = node_programs(Paths.from_environment())
    shutil.copy(IMAGES / name / "package.json", folder)
    words = [*npm, "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"]
    env = environment()
    env["PATH"] = f"{Path(node).parent}:{env['PATH']}"
    subprocess.run(words, check=True, cwd=folder, env=env)
    return folder / "package-lock.json"


def jars_lock(name: str, folder: Path) -> Path:
    """Resolve an environment's jars.lock by Maven, which downloads them."""
    paths = folder / "class-path"
    words = ["mvn", "-q", "-f", str(IMAGES / name / "pom.xml"), f"-Dmaven.repo.local={folder}"]
    words += ["dependency:build-classpath", f"-Dmdep.outputFile={paths}"]
    subprocess.run(words, check=True, cwd=folder)
    out = folder / "jars.lock"
    with out.open("w") as lines:
        for jar in paths.read_text().strip().split(":"):
            digest = hashlib.sha256(Path(jar).read_bytes()).hexdigest()
            lines.write(f"{digest}  {Path(jar).relative_to(folder)}\n")
    return out


_MAKERS = {
    "requirements.lock": python_lock,
    "package-lock.json": npm_lock,
    "jars.lock": jars_lock,
}


def changes(old: Path, new: Path) -> list[str]:
    """Return what differs between two lock files, one line a package."""
    before = {(one.name, one.version) for one in advisories.packages_in(old)}
    after = {(one.name, one.version) for one in advisories.packages_in(new)}
    versions: dict[str, tuple[list[str], list[str]]] = {}
    for index, only in ((0, before - after), (1, after - before)):
        for name, version in only:
            versions.setdefault(name, ([], []))[index].append(version)
    return [
        f"{name} {', '.join(sorted(gone)) or '(new)'} -> {', '.join(sorted(came)) or '(gone)'}"
        for name, (gone, came) in sorted(versions.items())
    ]


def main() -> int:
    """Renew what was asked for; returns 1 where a lock could not be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", nargs="*", help="default: all")
    parser.add_argument("--write", action="store_true", help="put the new locks in place")
    chosen = parser.parse_args()
    wanted = [
        lock
        for lock in advisories.locks(IMAGES)
        if not chosen.environments or lock.parent.name in chosen.environments
    ]
    order = {name: number for number, name in enumerate(_ORDER)}
    wanted.sort(key=lambda lock: (order.get(lock.parent.name, len(order)), lock))
    failed = 0
    for lock in wanted:
        name = lock.parent.name
        maker = _MAKERS[lock.name]
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = maker(name, Path(folder))
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{name}/{lock.name}: not renewed: {error}")
                failed = 1
                continue
            different = changes(lock, made)
            print(f"{name}/{lock.name}: {len(different)} packages change")
            print("".join(f"  {line}\n" for line in different), end="")
            if chosen.write and made.read_bytes() != lock.read_bytes():
                shutil.copyfile(made, lock)
    return failed


if __name__ == "__main__":
    sys.exit(main())
