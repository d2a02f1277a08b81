"""Programs of an environment that are compiled from Go modules, proved by their ``go.sum``.

``images/<name>/go.mod`` names the modules with their versions, each folder beside it that has a
``main.go`` becomes a program of its name. Go itself comes with the environment's Python packages;
its own settings (GOPROXY and others) say from where modules come.
Standard library only, as `hub.environments.build`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hub.environments.toolchain import BuildError

_KUBERNETES = re.compile(r"(?m)^\tk8s\.io/kubernetes (v1\.(\d+)\.\d+)$")
_VERSIONED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def sources(image: Path) -> list[Path]:
    """Return the files that an environment's Go programs are made of; none where it has none."""
    modules = image / "go.mod"
    return [modules, image / "go.sum", *sorted(image.glob("*/*.go"))] if modules.is_file() else []


def install(
    image: Path, environment: Path, say: Callable[[str], None], run: Callable[..., None]
) -> None:
    """Fetch the modules, and compile the programs into the environment.

    Parameters
    ----------
    image : Path
        The folder of ``go.mod``.
    environment : Path
        The environment, which has Go.
    say : callable
        Is told, in a few words, what is being done.
    run : callable
        Runs a command: ``run(program, *arguments, cwd=folder, env=variables)``.

    Raises
    ------
    BuildError
        A module cannot be had or is not what ``go.sum`` says, or it cannot be compiled.
    """
    go, binaries = environment / "bin" / "go", environment / "bin"
    folders = sorted({file.parent.name for file in image.glob("*/main.go")})
    env = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOGC": "400",  # memory for time, of the compiler
    }
    say("fetching Go modules")
    run(go, "mod", "download", cwd=image, env=env)
    run(go, "mod", "verify", cwd=image, env=env)
    say(f"compiling {' and '.join(folders)}, which takes minutes")
    # Without what only debuggers read.
    options = ("-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags={_link(image)}")
    packages = [f"./{folder}" for folder in folders]
    run(go, "build", *options, "-o", f"{binaries}/", *packages, cwd=image, env=env)


def _link(image: Path) -> str:
    """Return what the linker is told: Kubernetes' own build writes its version so."""
    match = _KUBERNETES.search((image / "go.mod").read_text())
    if not match:
        raise BuildError(f"{image}/go.mod does not name k8s.io/kubernetes")
    version, minor = match.groups()
    values = {"gitVersion": version, "gitMajor": "1", "gitMinor": minor}
    words = [f"-X {package}.{name}={value}" for package in _VERSIONED
             for name, value in values.items()]  # fmt: skip
    return " ".join(["-s", "-w", *words])
