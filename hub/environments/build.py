"""Environments: named once in images/, built as virtual environments from hashed locks.

Standard library only: `labhub` builds the hub's own environment with it, by the system's
Python. A stamp in the environment says what it was made from; it is written last, so an
interrupted build has none and is taken up again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from hub.environments import go_build, image_files, maven, source_build
from hub.environments.image_files import PROXY
from hub.environments.toolchain import (
    BuildError,
    environment,
    missing_packages,
    node_programs,
    runs,
    uv_settings,
)
from hub.state.create import make_folders
from hub.state.paths import REPOSITORY, Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_duration

_LOCK_TIMEOUT = 2 * 3600.0  # seconds: the largest is built from source

STAMP = "labhub.json"
_WITH_LABKIT = frozenset({"notebook", "r", "cellprofiler"})
_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_TAIL = 15  # lines of a failed build's log

Say = Callable[[str], None]


def exists(name: str) -> bool:
    """Whether images/ has an environment of this name."""
    return bool(_NAME.fullmatch(name)) and (name == PROXY or image_files.lock(name).is_file())


def names() -> list[str]:
    """Return the environments of images/; uv's is a tool of theirs."""
    names = {lock.parent.name for lock in image_files.IMAGES.glob("*/requirements.lock")} - {"uv"}
    return sorted(names | {PROXY})


def packages_missing(name: str) -> list[str]:
    """Return the system packages that an environment needs and this machine lacks.

    What the hub needs is `labhub`'s and `hub.sandbox`'s to say: not every portal does.
    """
    if name in ("hub", "dev", PROXY):
        return []
    compiled = (image_files.image(name) / "sources.lock").is_file()
    cargo = source_build.packages_missing() if compiled else []
    return missing_packages(image_files.image(name) / "apt.txt") + cargo


class Environments:
    """The environments of a portal.

    Parameters
    ----------
    paths : Paths
        Where they are, and where the logs go.
    say : callable
        Is told, in a few words, what is being done.
    """

    def __init__(self, paths: Paths, say: Say | None = None) -> None:
        self.paths = paths
        self.say: Say = say or (lambda _: None)

    def folder(self, name: str) -> Path:
        """Return an environment's folder."""
        return self.paths.envs / name

    def log(self, name: str) -> Path:
        """Return the log of an environment's last build."""
        return self.paths.log / f"build-{name}.log"

    def is_adopted(self, name: str) -> bool:
        """Whether it is a link to an environment that somebody else keeps, used as it is."""
        return self.folder(name).is_symlink() and self.folder(name).is_dir()

    def is_current(self, name: str) -> bool:
        """Whether it is there and was made from what images/ now says."""
        return self.is_adopted(name) or self._stamp(name) == self._wanted(name)

    def build(self, name: str) -> bool:
        """Make an environment current; return whether anything had to be done.

        Raises
        ------
        BuildError
            It failed.
        ProblemsError
            It cannot even begin.
        """
        self._remove_open_locks()
        if self.is_current(name):
            return False
        if not exists(name):
            text = f"there is no environment {name!r}"
            raise ProblemsError([Problem("images/", text, f"known: {', '.join(names())}")])
        make_folders(self.paths)
        with self._locked(name):
            if self.is_current(name):  # another labhub was first
                return False
            self._require_packages(name)
            self.log(name).write_text("")
            old = os.umask(0o022)  # everybody runs them
            before = self._stamp(name) or {}
            try:
                (self.folder(name) / STAMP).unlink(missing_ok=True)
                if name == PROXY:
                    self._build_proxy()
                else:
                    packages = any(before.get(k) != v for k, v in self._packages(name).items())
                    self._build_python(name, packages)
                    self._build_java(name)
                    self._build_sources(name, before.get("sources"))
                    self._build_go(name, before.get("go"))
                self._verify(name)
                files.write_atomic(self.folder(name) / STAMP, json.dumps(self._wanted(name)) + "\n")
            finally:
                os.umask(old)
        return True

    # -- Python -----------------------------------------------------------------------

    def _build_python(self, name: str, packages: bool) -> None:
        uv = self._uv(name)
        env = uv_settings(uv.parent / "python")
        folder = self.folder(name)
        python = folder / "bin" / "python"
        if not python.exists():
            # --clear: one whose Python is gone cannot be repaired.
            base = ("--no-project", "--python", _base_python())
            self._run(name, uv, "venv", "--clear", *base, folder, env=env)
        _close_lock(folder)
        into = ("--compile-bytecode", "--python", python)
        if packages:
            self._sync(name, uv, env, *into)
        if name in _WITH_LABKIT:
            self.say("installing labkit")
            with tempfile.TemporaryDirectory() as out:
                wheel = self._labkit(name, uv, env, Path(out))
                again = ("--no-deps", "--reinstall", *into)
                self._run(name, uv, "pip", "install", *again, wheel, env=env)

    def _sync(self, name: str, uv: Path, env: Mapping[str, str], *into: str | Path) -> None:
        """Install exactly what the lock says."""
        lock = image_files.lock(name)
        count = sum(1 for line in lock.read_text().splitlines() if re.match(r"[\w.-]+==", line))
        self.say(f"installing up to {count} packages")
        constraints = image_files.image(name) / "build-constraints.txt"
        built: tuple[str | Path, ...] = ("--build-constraints", constraints)
        options = ("--require-hashes", *(built if constraints.is_file() else ()))
        self._run(name, uv, "pip", "sync", *options, *into, lock, env=env)

    def _labkit(self, name: str, uv: Path, env: Mapping[str, str], out: Path) -> Path:
        """Build labkit's wheel from a copy, so that nothing is left in the repository."""
        source = out / "source"
        for file in image_files.labkit_sources():
            target = source / file.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        hashes = (
            "--require-hashes",
            "--build-constraints",
            image_files.IMAGES / "uv" / "build.lock",
        )
        python = ("--python", self.folder(name) / "bin" / "python")
        self._run(name, uv, "build", "--wheel", *hashes, *python, "-o", out, source, env=env)
        return next(out.glob("*.whl"))

    def _uv(self, name: str) -> Path:
        """Return uv, of its own small environment."""
        folder, lock = self.paths.envs / "uv", image_files.IMAGES / "uv" / "requirements.lock"
        stamp, wanted = folder / STAMP, json.dumps({"lock": image_files.digest(lock)}) + "\n"
        with self._locked("uv"):
            if not stamp.is_file() or stamp.read_text() != wanted or not runs(folder / "bin/uv"):
                self.say("fetching uv")
                self._run(name, _base_python(), "-m", "venv", "--clear", folder)
                pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
                self._run(name, *pip, "--require-hashes", "-r", lock)
                files.write_atomic(stamp, wanted)
        return folder / "bin" / "uv"

    # -- Java -------------------------------------------------------------------------

    def _build_java(self, name: str) -> None:
        """Install the jars that images/ has a lock for, and the programs that call them."""
        if not image_files.jars(name).is_file():
            return
        maven.install(image_files.jars(name), self.folder(name) / "share" / "java", self.say)
        for program in image_files.programs(name):
            shutil.copy(program, self.folder(name) / "bin" / program.name)

    # -- programs that are compiled ---------------------------------------------------

    def _build_sources(self, name: str, before: str | None) -> None:
        """Compile what images/ has a lock of sources for, unless that was done."""
        lock = image_files.image(name) / "sources.lock"
        if lock.is_file() and before != image_files.sources_digest(name):
            source_build.install(lock, self.folder(name), self.say, partial(self._run, name))

    def _build_go(self, name: str, before: str | None) -> None:
        """Compile what images/ has a ``go.mod`` for, unless that was done."""
        sources = go_build.sources(image_files.image(name))
        if sources and before != image_files.digest(*sources):
            go_build.install(
                image_files.image(name), self.folder(name), self.say, partial(self._run, name)
            )

    # -- the proxy --------------------------------------------------------------------

    def _build_proxy(self) -> None:
        folder = self.folder(PROXY)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copyfile(image_files.IMAGES / "hub" / file, folder / file)
        node, npm = node_programs(self.paths)
        self.say(f"installing configurable-http-proxy with Node from {node.parent}")
        env = {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        options = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
        self._run(PROXY, *npm, "ci", *options, env=env, cwd=folder)

    # -- common -----------------------------------------------------------------------

    def _wanted(self, name: str) -> dict[str, str]:
        if name == PROXY:
            return {
                "lock": image_files.digest(image_files.lock(name)),
                "verify": image_files.digest(image_files.verify_script(name)),
            }
        made = {
            **self._packages(name),
            "verify": image_files.digest(image_files.verify_script(name)),
        }
        if name in _WITH_LABKIT:
            made["labkit"] = image_files.digest(*image_files.labkit_sources())
        if image_files.jars(name).is_file():
            made["jars"] = image_files.digest(image_files.jars(name))
            made |= {
                f"bin/{program.name}": image_files.digest(program)
                for program in image_files.programs(name)
            }
        if (image_files.image(name) / "sources.lock").is_file():
            made["sources"] = image_files.sources_digest(name)
        if programs := go_build.sources(image_files.image(name)):
            made["go"] = image_files.digest(*programs)
        return made

    def _packages(self, name: str) -> dict[str, str]:
        """Return what the installed packages depend on."""
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return {"lock": image_files.digest(image_files.lock(name)), "python": python}

    def _stamp(self, name: str) -> dict[str, str] | None:
        folder = self.folder(name)
        try:
            stamp: dict[str, str] = json.loads((folder / STAMP).read_text())
        except (OSError, ValueError):
            return None
        program = folder / ("node_modules" if name == PROXY else "bin/python")
        return stamp if program.exists() else None

    def _require_packages(self, name: str) -> None:
        missing = packages_missing(name)
        if missing:
            text = f"needs {', '.join(missing)} from the system"
            hint = f"apt-get install -y {' '.join(missing)}"
            raise ProblemsError([Problem(f"images/{name}/apt.txt", text, hint)])

    def _verify(self, name: str) -> None:
        script = image_files.verify_script(name)
        if not script.is_file():
            return
        self.say("proving that it works")
        binaries = self.folder(name) / "bin"
        path = os.environ.get("PATH", os.defpath)
        if name == PROXY:
            path = f"{node_programs(self.paths)[0].parent}{os.pathsep}{path}"
        env = {"PATH": f"{binaries}{os.pathsep}{path}", "LABHUB_ENVS": str(self.paths.envs)}
        with tempfile.TemporaryDirectory() as scratch:
            home = {"HOME": scratch, "PYTHONPATH": ""}
            self._run(name, script, env={**env, **home}, cwd=Path(scratch))

    def _run(
        self,
        name: str,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        log = self.log(name)
        words = [str(word) for word in command]
        with log.open("a") as stream:
            stream.write(f"$ {' '.join(words)}\n")
            stream.flush()
            try:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    env={**environment(), **(env or {})},
                    cwd=cwd or self.paths.envs,
                    check=False,
                )
            except OSError as error:
                raise BuildError(f"{words[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            tail = textwrap.indent(files.tail(log, _TAIL), "    ")
            raise BuildError(
                f"the environment {name!r} could not be built; the whole log is {log}\n{tail}"
            )

    def _remove_open_locks(self) -> None:
        """Remove locks that anybody could hold: those of earlier versions, and uv's."""
        open_ones = list(self.paths.envs.glob(".*.lock"))
        for lock in self.paths.envs.glob("*/.lock"):
            if not lock.parent.is_symlink() and lock.stat().st_mode & 0o077:
                open_ones.append(lock)
        for lock in open_ones:
            with contextlib.suppress(OSError):  # a folder that another account keeps
                lock.unlink()

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of one environment; a second `labhub` waits for the first."""
        held = contextlib.ExitStack()
        try:
            # Closed: in a sandbox, whoever can open a lock can hold it.
            folder = self.paths.envs / ".locks"
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
            lock = files.locked(
                folder / name,
                _LOCK_TIMEOUT,
                f"the environment {name}",
                on_wait=self.say,
            )
            held.enter_context(lock)
        except files.LockTimeoutError as error:
            raise BuildError(str(error)) from None
        except OSError as error:
            text = f"cannot be written: {error.strerror}"
            hint = "use the account that owns it, or ask its owner to build the environment"
            raise ProblemsError([Problem(str(self.paths.envs), text, hint)]) from None
        with held:
            yield


def _close_lock(folder: Path) -> None:
    """Have uv's lock of an environment as a file of our own: uv would let anybody hold it."""
    lock = folder / ".lock"
    lock.unlink(missing_ok=True)
    os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _base_python() -> Path:
    """Return the system's Python that this one came from."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    return Path(os.path.realpath(base))


def main(names: Sequence[str]) -> int:
    """Build the named environments, telling on stderr what is done."""
    for name in names:
        start = time.monotonic()
        environments = Environments(
            Paths.from_environment(),
            lambda text, name=name: print(f"  {name}: {text}", file=sys.stderr, flush=True),  # type: ignore[misc]
        )
        try:
            if environments.build(name):
                print(
                    f"  {name}: ready after {format_duration(time.monotonic() - start)}",
                    file=sys.stderr,
                )
        except (BuildError, ProblemsError) as error:
            print(f"labhub: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("labhub: interrupted; the next call goes on from here", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
