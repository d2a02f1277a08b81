"""Ask SLURM whether it would take the servers' jobs, without submitting any (``--test-only``)."""

from __future__ import annotations

import asyncio
import os
import re

from hub.labfile.schema import Profile, Settings
from hub.sandbox import AccountError, accounts_of
from hub.slurm.cluster import PartitionView, too_large
from hub.slurm.commands import Account
from hub.slurm.job_options import job_options
from hub.slurm.owner import account_of, as_owner
from hub.slurm.submit import Order, options
from labkit.base.problems import Problem
from labkit.slurm.cluster import Cluster, Partition
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError

_TIMEOUT = 10.0  # seconds
# What no other hour of the day will change, and which key of the lab file it is about.
_LASTING = (
    (r"account", "slurm.account"),
    (r"qos|quality of service", "slurm.qos"),
    (r"reservation", "reservation"),
    (r"feature|constraint", "constraint"),
    (r"gres|generic resource", "gpus"),
    (r"node configuration|memory", "memory"),
    (r"time limit", "slurm.time_limit"),
    (r"group not permitted|access.*denied|not permitted", "partitions"),
)


def member(settings: Settings) -> Account:
    """Return as whom something is tried: oneself, or for root the portal's first member.

    Raises
    ------
    AccountError
        There is none.
    """
    if os.geteuid() != 0:
        return account_of(settings, Account.of_uid(os.geteuid()).name)
    members = accounts_of(settings).list()
    if not members:
        group = settings.authentication.unix_group
        raise AccountError(f"the group {group} has no member, as whom a job could be tried")
    return account_of(settings, members[0].name)


async def refused(settings: Settings, cluster: Cluster) -> list[Problem]:
    """Return what SLURM itself would turn down, of each profile in each of its partitions.

    What only lasts for now (nodes that are down, a controller that is away) is none.

    Parameters
    ----------
    settings : Settings
        The lab file, of the slurm target.
    cluster : Cluster
        Whose partitions there are.
    """
    try:
        account = await asyncio.to_thread(member, settings)
    except AccountError:
        return []  # `_rights` and `labhub doctor` say that nobody is there
    found: dict[tuple[str, str], Problem] = {}
    for profile in settings.profiles:
        for name in settings.partitions_of(profile):
            part = cluster.partition(name)
            if part is None or part.state != "UP" or too_large(PartitionView(part), profile):
                continue
            problem = await _try(settings, profile, part, account, cluster.counts_memory)
            if problem is not None:
                found.setdefault((problem.where, problem.text), problem)
    return list(found.values())


async def _try(
    settings: Settings,
    profile: Profile,
    part: Partition,
    account: Account,
    counts_memory: bool,
) -> Problem | None:
    slurm = settings.slurm
    if slurm is None:
        return None
    wanted = job_options(settings, profile, settings.groups_of(account.name))
    order = Order("labhub-check", part.name, profile, "/dev/null", wanted, counts_memory)
    try:
        words = ["--test-only", *options(order, slurm, account.home, "labhub-check")]
        await as_owner(account, "sbatch", words, stdin="#!/bin/sh\n", timeout=_TIMEOUT)
    except ValueError as error:
        return Problem(f"profiles.{profile.name}", str(error), "")
    except SlurmRefusedError as error:
        text = str(error)
        key = next((key for said, key in _LASTING if re.search(said, text, re.IGNORECASE)), "")
        if not key:
            return None
        where = key if "." in key else f"profiles.{profile.name}.{key}"
        hint = f"as {account.name}: sbatch --test-only --partition={part.name} ..."
        return Problem(where, f"SLURM refuses the partition {part.name}: {text}", hint)
    except SlurmUnavailableError:
        return None
    return None
