"""A real sandbox without a hub: what a program finds in it, and what it may do there."""

from __future__ import annotations

import ipaddress
import pwd
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hub.sandbox import cgroups, remove_all
from hub.sandbox.bubblewrap import environment_folders
from hub.sandbox.inherited import renew
from hub.sandbox.instance import Instance, sandbox_key
from hub.sandbox.network import Network
from hub.sandbox.sandboxes import Sandboxes, Shared
from hub.sandbox.shared_folders import Folders
from hub.state.paths import Paths
from tests.support.portal import built_envs

PYTHON = "/usr/bin/python3"
NO_FOLDERS = Folders()


@contextmanager
def bare_sandboxes(state: Path, subnet: str) -> Iterator[Sandboxes]:
    """Give the sandboxes of a portal that has no hub; all are removed at the end."""
    paths = Paths(state, built_envs())
    instance = Instance.of(paths)
    sandboxes = Sandboxes(
        instance,
        Network(instance, ipaddress.IPv4Network(subnet), 8081),
        cgroups.detect(instance.cgroup),
        Shared(read_only=environment_folders(paths.envs)),
    )
    try:
        yield sandboxes
    finally:
        remove_all(sandboxes)


def run_inside(
    sandboxes: Sandboxes,
    who: str,
    command: list[str],
    *,
    user_namespaces: bool = False,
    before: Callable[[], None] = lambda: None,
    env: dict[str, str] | None = None,
    folders: Folders = NO_FOLDERS,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a new sandbox of a person's, to its end.

    Parameters
    ----------
    sandboxes : Sandboxes
        The portal's.
    who : str
        Whose.
    command : list of str
        What to run.
    user_namespaces : bool
        What the profile says.
    before : callable
        Is called in the new process first, as if the hub itself had been started so.
    env : dict, optional
        Its environment.
    folders : Folders
        The shared folders that it sees.
    """
    account = pwd.getpwnam(who)
    key = sandbox_key(account.pw_uid, "")
    limits = cgroups.SandboxLimits(cpu=1, memory=1 << 30, processes=256)
    sandbox = sandboxes.create(
        key, account, limits, user_namespaces=user_namespaces, folders=folders
    )
    anew = renew(sandbox.join_files, umask=0o077)

    def first() -> None:
        before()
        anew()

    try:
        with sandbox.prepared() as (front, descriptors):
            return subprocess.run(
                [*front, *command],
                env={"PATH": "/usr/bin:/bin", "HOME": account.pw_dir, **(env or {})},
                pass_fds=descriptors,
                preexec_fn=first,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
    finally:
        sandboxes.destroy(key)
