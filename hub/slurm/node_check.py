"""Try from a compute node, as one of the portal's people, what servers there will need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any

from hub.labfile.schema import Profile, Settings
from hub.sandbox import AccountError
from hub.slurm.addresses import Addresses
from hub.slurm.cluster import cluster_of
from hub.slurm.commands import Account, run_slurm
from hub.slurm.job_options import job_options
from hub.slurm.orphans import job_name
from hub.slurm.owner import as_owner, read_tail
from hub.slurm.poller import COLUMNS, over, parse
from hub.slurm.script import probe_script, server_words
from hub.slurm.submit import Order, submit
from hub.slurm.trial import member
from hub.state.paths import Paths
from labkit.base.problems import Problem
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.exit_reasons import how
from labkit.slurm.queue import Job

_EVERY = 1.0  # seconds between two looks
_CONNECT = 5.0
_HINTS = {
    "name": "slurm.hub_host: a name or address that the nodes know",
    "hub": "open local.hub_port to the nodes; slurm.hub_host and slurm.listen name the address",
    "gate": "open local.gate_port to the nodes",
    "environments": "slurm.environments must be the same folder on the nodes: mount it there",
    "network": "docs/how-to/slurm.md, 'Who can reach what on a node'",
    "ports": "slurm.ports: a range of which some are free on the nodes",
    "port": "open slurm.ports of the nodes to this host",
}


@dataclass(frozen=True)
class NodeReport:
    """What one node was found to be like.

    Attributes
    ----------
    node : str
        Its name; empty where no job came to run.
    seen : tuple of str
        What works.
    problems : tuple of Problem
        What does not.
    """

    node: str
    seen: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def try_node(settings: Settings, paths: Paths, partition: str) -> NodeReport:
    """Run a small job in a partition and return what it met.

    It is a member's job, with the limits of the smallest profile that may run there, and waits
    as long as a server would (``slurm.queue_timeout``). Nothing of it stays.

    Parameters
    ----------
    settings : Settings
        The lab file, of the slurm target.
    paths : Paths
        Where the portal keeps its state.
    partition : str
        Where.
    """
    slurm = settings.slurm
    if slurm is None or partition not in slurm.partitions:
        known = ", ".join(slurm.partitions) if slurm else "none"
        text = f"the lab file offers no partition {partition}"
        return NodeReport("", problems=(Problem("slurm.partitions", text, f"it has: {known}"),))
    offered = [p for p in settings.profiles if partition in settings.partitions_of(p)]
    if not offered:
        text = f"no profile may run in the partition {partition}"
        return NodeReport("", problems=(Problem("profiles", text, "profiles.*.partitions"),))
    profile = min(offered, key=lambda one: (one.gpus, one.cpu, one.memory))
    try:
        account = member(settings)
        return asyncio.run(_try(settings, paths, partition, profile, account))
    except (AccountError, SlurmUnavailableError, ValueError) as error:
        return NodeReport("", problems=(Problem(f"node of {partition}", str(error), ""),))


async def _try(
    settings: Settings, paths: Paths, partition: str, profile: Profile, account: Account
) -> NodeReport:
    slurm = settings.slurm
    if slurm is None:
        raise ValueError("the lab file has no section slurm")
    scheme = "https" if slurm.internal_ssl else "http"
    local = settings.local
    program = server_words(slurm, profile.environment)[0]
    wanted = {
        "hub": f"{scheme}://{slurm.hub_host}:{local.hub_port}/hub/api",
        "gate": f"{scheme}://{slurm.hub_host}:{local.gate_port}",
        "programs": [program] if "/" in program else [],
        "network": slurm.network,
        "ports": [slurm.port_range.start, slurm.port_range.stop - 1],
    }
    view = await cluster_of(settings).describe()
    wanted_by = job_options(settings, profile, settings.groups_of(account.name))
    log = f"{account.home}/.labhub-node-check.log"
    order = Order(
        f"{job_name(paths)}-check", partition, profile, log, wanted_by, view.counts_memory
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": account.home, "LOGNAME": account.name}
    if conf := os.environ.get("SLURM_CONF"):
        env["SLURM_CONF"] = conf
    since = time.monotonic()
    script = probe_script(slurm, profile.environment, wanted)
    job = await submit(order, slurm, account, script, env)
    try:
        async with asyncio.timeout(slurm.queue_timeout.total_seconds()):
            row, results = await _results(job, account, log, since)
    except TimeoutError:
        text = f"the job {job} of {account.name} did not run and report within the queue_timeout"
        return NodeReport("", problems=(Problem(f"node of {partition}", text, f"squeue -j {job}"),))
    finally:
        with contextlib.suppress(SlurmUnavailableError):
            await as_owner(account, "scancel", ["--", job])
    where = f"node {row.host}" if row.host else f"node of {partition}"
    if not results:
        text = f"{how(row.state, reason=row.reason, node=row.host, home=account.home)} (job {job})"
        return NodeReport(row.host, problems=(Problem(where, text, ""),))
    bad = [one for one in results if not one["ok"]]
    return NodeReport(
        row.host,
        tuple(str(one["text"]) for one in results if one["ok"]),
        tuple(Problem(where, str(one["text"]), _HINTS.get(one["topic"], "")) for one in bad),
    )


async def _results(
    job: str, account: Account, log: str, since: float
) -> tuple[Job, list[dict[str, Any]]]:
    """Wait for what the job reports; connect to its port when it names one."""
    while True:
        await asyncio.sleep(_EVERY)
        text = await run_slurm("squeue", "-h", "-a", "-t", "all", "-j", job, "-o", COLUMNS.format)
        row = parse(text).get(job, Job(id=job))
        results = []
        with contextlib.suppress(SlurmUnavailableError):
            results = _read(await read_tail(account, log), job)
        port = next((one["port"] for one in results if one["topic"] == "port"), None)
        if port is not None:
            results[-1] |= await _connect(row.host, int(port), since)
            return row, results
        if over(row):
            return row, results


def _read(text: str, job: str) -> list[dict[str, Any]]:
    """Return the reports of a job's log; one of an earlier job is another's."""
    results = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            one = json.loads(line)
            if one["job"] == job:
                results.append({key: one[key] for key in ("topic", "ok", "text", "port")})
    return results


async def _connect(node: str, port: int, since: float) -> dict[str, Any]:
    try:
        address = await Addresses().of(node, since)
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(address, port)
            greeting = await reader.read(16)
            writer.close()
        if greeting != b"labhub":
            raise OSError("something else answers there")
    except (OSError, SlurmUnavailableError) as error:
        why = str(error) or "no answer"
        return {"ok": False, "text": f"this host does not reach {node}:{port}: {why}"}
    return {"ok": True, "text": f"this host reaches {node}:{port}"}
