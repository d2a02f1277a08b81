"""``labhub test``."""

from __future__ import annotations

import os

import click

from hub.cli.up import build
from hub.environments import build as environments
from hub.environments import toolchain
from hub.state.paths import REPOSITORY, Paths

# The tests of one file stay together: they share a portal.
PARALLEL = ("--numprocesses", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile")


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the tests; ARGUMENTS go to pytest.

    Makes the environments that they need. What this machine cannot run is skipped, and the
    summary at the end names each with its reason. They run on all cores, up to four; `-n 0`
    runs them one after the other, as a debugger needs it.

    \b
    Examples:
      sudo ./labhub test
      ./labhub test tests/hub -k settings
      ./labhub test -m "not slow"
    """  # noqa: D301
    paths = Paths.from_environment()
    missing = {name: environments.packages_missing(name) for name in environments.names()}
    build([name for name, packages in missing.items() if not packages], paths)
    for name, packages in missing.items():
        if packages:
            needed = " ".join(packages)
            click.echo(f"  Left out: the tests of {name}. They need: apt-get install -y {needed}")
    python = paths.env_bin("dev", "python")
    node, _ = toolchain.node_programs(paths)
    env = {
        k: v
        for k, v in os.environ.items()
        # Nothing of the portal in use may reach its tests.
        if k not in ("LABHUB_STATE", "LABHUB_CONFIG", "PYTHONPATH")
    }
    env["LABHUB_ENVS"] = str(paths.envs)
    env["PATH"] = f"{env.get('PATH', os.defpath)}{os.pathsep}{node.parent}"
    os.chdir(REPOSITORY)
    words = [str(python), "-m", "pytest", *PARALLEL, *arguments]
    os.execve(words[0], words, env)  # noqa: S606 - an argument list
