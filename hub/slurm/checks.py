"""What keeps user servers from running on SLURM, found before anything is started."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hub.labfile.schema import Settings
from hub.labfile.slurm import EVERYWHERE, Slurm
from hub.sandbox import accounts_of
from hub.slurm import reachable
from hub.slurm.addresses import own_addresses
from hub.slurm.commands import run_slurm
from hub.slurm.fit import misfits
from hub.slurm.orphans import orphans
from hub.slurm.owner import HELPER, SUDO, sudo_command
from hub.slurm.trial import refused
from hub.state.environments_link import is_here
from hub.state.paths import Paths
from labkit.base.problems import Problem
from labkit.slurm.cluster import CONFIG, PARTITIONS, parse
from labkit.slurm.commands import SlurmUnavailableError, find
from labkit.slurm.nodes import NODES

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")
_TIMEOUT = 10.0
_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


def problems(settings: Settings, slurm: Slurm, paths: Paths) -> list[Problem]:
    """Return what is wrong for the slurm target; nothing is changed.

    Parameters
    ----------
    settings : Settings
        The lab file.
    slurm : Slurm
        Its section.
    paths : Paths
        Where the portal keeps its state.
    """
    missing = list(_programs())
    found = [*missing, *_rights(settings), *_environments(slurm, paths)]
    if missing:
        return [*found, *reachable.problems(slurm, ())]
    return [*found, *asyncio.run(_cluster(settings, slurm))]


def left_over(paths: Paths) -> tuple[str, list[Problem]]:
    """Say whether there are jobs that no hub knows: a line, and the problem if there are."""
    try:
        rows = asyncio.run(orphans(paths))
    except SlurmUnavailableError as error:
        return "", [Problem("slurm", str(error), "scontrol ping", warning=True)]
    if not rows:
        return "no job without its hub", []
    text = f"{len(rows)} jobs of this portal are not known to its hub"
    return text, [Problem("slurm", text, "labhub slurm orphans", warning=True)]


def _programs() -> Iterator[Problem]:
    for name in PROGRAMS:
        try:
            find(name)
        except SlurmUnavailableError as error:
            yield Problem("slurm", str(error), "apt-get install -y slurm-client")


def exposure(settings: Settings, slurm: Slurm) -> list[Problem]:
    """Return warnings where hub and gate can be reached by more than the nodes."""
    everywhere = slurm.bind_address == EVERYWHERE
    heard = own_addresses() if everywhere else [slurm.bind_address]
    public = [text for text in heard if ipaddress.ip_address(text).is_global]
    if not everywhere and not public:
        return []
    ports = f"{settings.local.hub_port} and {settings.local.gate_port}"
    where = f"of the internet ({', '.join(public)})" if public else f"({', '.join(heard)})"
    text = f"hub and gate listen on {'all ' if everywhere else ''}addresses {where}"
    hint = f"slurm.listen: the address that nodes use; let a firewall close {ports} to all others"
    return [Problem("slurm.listen", text, hint, warning=True)]


def _environments(slurm: Slurm, paths: Paths) -> Iterator[Problem]:
    folder = slurm.environments
    if folder.resolve() == paths.envs.resolve():
        return
    named = os.environ.get("LABHUB_ENVS")
    if not is_here(folder):
        text = f"{folder} is not seen on this host, so nobody can say whether it is whole"
        yield Problem("slurm.environments", text, "mount it here, too", warning=True)
    elif named:
        text = f"LABHUB_ENVS says {named}, and the lab file {folder}"
        yield Problem("slurm.environments", text, "unset LABHUB_ENVS: the lab file is enough")


async def _cluster(settings: Settings, slurm: Slurm) -> list[Problem]:
    """Compare the lab file with the cluster itself, if it answers."""
    try:
        answers = [
            await run_slurm("scontrol", *words, timeout=_TIMEOUT)
            for words in (CONFIG, PARTITIONS, NODES)
        ]
        cluster = parse(*answers)
    except SlurmUnavailableError as error:
        hint = "scontrol ping; without SLURM no server starts"
        silent = Problem("slurm", str(error), hint, warning=True)
        return [*reachable.problems(slurm, ()), silent]
    nodes = {node.name: node for part in cluster.partitions for node in part.nodes}
    found = [*reachable.problems(slurm, nodes.values())]
    if cluster.private & {"jobs", "all"} and os.geteuid() != 0:
        text = (
            "slurm.conf has PrivateData=jobs: the hub would not see its users' jobs and take them"
            " for ended"
        )
        hint = "run labhub as root, or make its account an operator of SLURM"
        found.append(Problem("slurm", text, hint))
    found += misfits(settings, cluster)
    return [*found, *await refused(settings, cluster)]


# -- sudo -------------------------------------------------------------------------------------


def sudoers(settings: Settings, account: str) -> str:
    """Return the rule that lets the hub's account submit jobs as members of the group.

    Parameters
    ----------
    settings : Settings
        The lab file.
    account : str
        The hub's account.

    Raises
    ------
    ValueError
        A name or path is none that sudo takes as it is.
    """
    group = settings.authentication.unix_group
    for name in (account, group):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an account")
    if re.search(r"[\s\\,:=#!*?\[\]\"]", str(HELPER)):
        raise ValueError(f"the path {HELPER} has characters that mean something to sudo")
    return (
        "# Labhub: start and cancel jobs as members of one group, never as root.\n"
        "# visudo -cf FILE checks it; install it as /etc/sudoers.d/labhub, mode 0440.\n"
        f"Cmnd_Alias LABHUB_JOBS = {' '.join(sudo_command())}\n"
        "Defaults!LABHUB_JOBS env_reset, !setenv, !requiretty\n"
        f"{account} ALL=(%{group}) NOPASSWD: NOSETENV: LABHUB_JOBS\n"
    )


def _rights(settings: Settings) -> Iterator[Problem]:
    if os.geteuid() == 0 or settings.authentication.effective_method == "owner":
        return
    hint = "labhub render sudoers, and install it as root"
    if not Path(SUDO).exists():
        yield Problem("sudo", "is not installed", "apt-get install -y sudo, or run labhub as root")
        return
    for path in (HELPER, *HELPER.parents):
        status = path.stat()
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            text = "others than root can change it, and sudo runs it as every user"
            yield Problem(str(path), text, "let root own the portal's program")
            break
    members = [account.name for account in accounts_of(settings).list()]
    if not members:
        text = f"the group {settings.authentication.unix_group} has no member"
        yield Problem("authentication.unix_group", text, "gpasswd --add", warning=True)
    elif not _may(members[0]):
        yield Problem("sudo", f"the hub may not submit jobs as {members[0]}", hint)
    if _may("root"):
        yield Problem("sudo", "the hub could do the same as root: the rule is too wide", hint)


def _may(user: str) -> bool:
    done = subprocess.run(
        [SUDO, "-n", "-l", "-u", user, "--", *sudo_command()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_TIMEOUT,
    )
    return done.returncode == 0
