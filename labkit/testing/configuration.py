"""What is written for a test cluster: slurm.conf, gres.conf, the limit on submitted jobs."""

from __future__ import annotations

import getpass
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_GRES = re.compile(r"[a-z]{1,16}(:[A-Za-z0-9_]{1,32})?:[1-9][0-9]?")
_MAIN = {"main": {"Default": "YES"}}


@dataclass(frozen=True)
class Layout:
    """A cluster as it is asked for; see :class:`labkit.testing.SlurmCluster`."""

    nodes: int = 4
    cpus: int = 16
    memory: int = 16_000
    partitions: Mapping[str, Mapping[str, object]] | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    gres: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    max_array_size: int | None = None
    max_submit_jobs: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes: node1, node2, …."""
        return tuple(f"node{number}" for number in range(1, self.nodes + 1))

    def problems(self) -> list[str]:
        """Return all that is wrong with it."""
        found = [
            f"{name}={value}: a number from 1 to {most} is needed"
            for name, value, most in (
                ("nodes", self.nodes, 64),
                ("cpus", self.cpus, 4096),
                ("memory", self.memory, 10**9),
                ("max_array_size", self.max_array_size, 4_000_001),
                ("max_submit_jobs", self.max_submit_jobs, 10**7),
            )
            if value is not None and not 1 <= value <= most
        ]
        for kind, nodes in (("features", self.features), ("gres", self.gres)):
            found += [
                f"{kind}[{name!r}]: there is no such node; valid: {', '.join(self.names)}"
                for name in nodes
                if name not in self.names
            ]
        found += [
            f"gres[{node!r}]={value!r}: not like 'gpu:2' or 'gpu:a100:2'"
            for node, value in self.gres.items()
            if not _GRES.fullmatch(value)
        ]
        words: list[object] = [*self.features.values()]
        for name, options in (self.partitions or {}).items():
            if not _NAME.fullmatch(name):
                found.append(f"partitions[{name!r}]: not a name of letters, digits, _ and -")
            words += [word for pair in options.items() for word in pair]
        found += [f"{word!r}: no space in it" for word in words if re.search(r"\s", str(word))]
        found += [
            f"config[{key!r}]: one line, without a '=' in the key"
            for key, value in self.config.items()
            if "=" in key or "\n" in f"{key}{value}"
        ]
        return found


_FOLDERS = {"munge": 0o755, "spool": 0o755, "run": 0o755, "log": 0o700, "state": 0o700,
            "secret": 0o700}  # fmt: skip


def write(layout: Layout, folder: Path, ports: Sequence[int]) -> None:
    """Write a cluster's folder; see :func:`render`. Users other than ours may pass through it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, mode in _FOLDERS.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)
    key = folder / "secret/munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
    for node, value in layout.gres.items():
        for device in _devices(node, value, folder):
            device.touch()
    for name, text in render(layout, folder, ports).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def render(layout: Layout, folder: Path, ports: Sequence[int]) -> dict[str, str]:
    """Return the files of the configuration, by name.

    Parameters
    ----------
    layout : Layout
        The cluster.
    folder : Path
        The cluster's folder.
    ports : sequence of int
        One for slurmctld, then one for each node.
    """
    host = socket.gethostname().partition(".")[0]
    user = getpass.getuser()
    lines: dict[str, object] = {
        "ClusterName": "labkit",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        # Nobody outside this machine is to reach it.
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        # What requeues itself starts again after this many seconds; SLURM's own value is 120.
        "AuthInfo": f"socket={folder}/munge/socket,cred_expire=5",
        "CredType": "cred/munge",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "spool/%n",
        "SlurmctldPidFile": folder / "run/slurmctld.pid",
        "SlurmdPidFile": folder / "run/%n.pid",
        "SlurmctldLogFile": folder / "log/slurmctld.log",
        "SlurmdLogFile": folder / "log/%n.log",
        "SlurmdParameters": "config_overrides",  # nodes larger than this machine
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": max(1, layout.memory // layout.cpus),
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        # Without cgroups: a job over its memory is killed at the next of these looks.
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=1",
        "JobAcctGatherParams": "OverMemoryKill",
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": folder / "log/completed.txt",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0,bf_interval=2",
        "MpiDefault": "none",
        "SwitchType": "switch/none",
        "ReturnToService": 2,
        "KillWait": 2,
        "SlurmdTimeout": 15,
        "MinJobAge": 300,
        "MailProg": "/bin/true",
    }
    if layout.max_array_size is not None:
        lines["MaxArraySize"] = layout.max_array_size
    if layout.max_submit_jobs is not None:
        lines["JobSubmitPlugins"] = "lua"
    kinds = sorted({value.partition(":")[0] for value in layout.gres.values()})
    if kinds:
        lines["GresTypes"] = ",".join(kinds)
    given = {key.lower() for key in layout.config}
    text = [f"{key}={value}" for key, value in lines.items() if key.lower() not in given]
    text += [f"{key}={value}" for key, value in layout.config.items()]
    for name, port in zip(layout.names, ports[1:], strict=True):
        text.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs={layout.cpus} RealMemory={layout.memory}"
            + (f" Feature={layout.features[name]}" if name in layout.features else "")
            + (f" Gres={layout.gres[name]}" if name in layout.gres else "")
        )
    for name, options in (layout.partitions or _MAIN).items():
        settings = {"Nodes": "ALL", "MaxTime": "INFINITE", "State": "UP", **options}
        words = " ".join(f"{key}={value}" for key, value in settings.items())
        text.append(f"PartitionName={name} {words}")
    files = {"slurm.conf": "\n".join(text) + "\n"}
    if kinds:
        files["gres.conf"] = "".join(
            _gres(name, value, folder) for name, value in layout.gres.items()
        )
    if layout.max_submit_jobs is not None:
        limit = _LIMIT.replace("@LIMIT@", str(layout.max_submit_jobs))
        files["job_submit.lua"] = limit.replace("@EMPTIED@", str(folder / EMPTIED))
    return files


def _gres(node: str, value: str, folder: Path) -> str:
    """Return the gres.conf line of ``gpu:2`` or ``gpu:a100:2``; its devices are empty files."""
    kind, _, rest = value.partition(":")
    model, _, count = rest.rpartition(":")
    of = f" Type={model}" if model else ""
    last = int(count) - 1
    files = f"{folder}/run/{node}-{kind}[0-{last}]"
    return f"NodeName={node} Name={kind}{of} Count={count} File={files}\n"


def _devices(node: str, value: str, folder: Path) -> list[Path]:
    """Return the files that stand for a node's devices: without them SLURM counts no GPU."""
    kind, _, rest = value.partition(":")
    count = int(rest.rpartition(":")[2])
    return [folder / "run" / f"{node}-{kind}{number}" for number in range(count)]


#: In a cluster's folder: written anew whenever nothing is left in the queue; see below.
EMPTIED = "run/emptied"

# MaxSubmitJobs is a limit of the accounting database, which a test cluster does without. This
# counts as the database does (each task of an array is a job) and refuses with the same code.
_LIMIT = """
local function tasks(expression)
  if expression == nil then return 1 end
  local count = 0
  for part in string.gmatch(string.gsub(expression, "%%.*", ""), "[^,]+") do
    local first, last, step = string.match(part, "^(%d+)-(%d+):?(%d*)$")
    if first == nil then
      count = count + 1
    else
      step = tonumber(step) or 1
      count = count + math.floor((tonumber(last) - tonumber(first)) / step) + 1
    end
  end
  return count
end

-- slurm.jobs lags: a change within the second of its last renewal shows with the next one. What was
-- let through since is counted here, for a minute: SLURM may have refused it for another reason.
-- Jobs that come and go within that second never show, and with nothing let in any more nothing is
-- renewed: whoever empties the queue says so in a file, and what was known by then is gone.
local newest, accepted, at, emptied, gone = 0, {}, 0, "", 0

local function said()
  local file = io.open([==[@EMPTIED@]==])
  if file == nil then return "" end
  local text = file:read("*a")
  file:close()
  return text
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  local asked, count, last = tasks(job_desc.array_inx), 0, 0
  for _, job in pairs(slurm.jobs) do last = math.max(last, job.job_id) end
  local now_emptied = said()
  if now_emptied ~= emptied then gone = last end
  if last > newest or os.time() > at + 60 or now_emptied ~= emptied then
    newest, accepted, emptied = last, {}, now_emptied
  end
  for _, job in pairs(slurm.jobs) do
    -- The low byte is the state: 0 pending, 1 running, 2 suspended; later ones have ended.
    if job.user_id == submit_uid and job.job_id > gone and job.job_state % 256 < 3 then
      local waiting = job.array_task_id == slurm.NO_VAL and job.array_task_cnt or 1
      count = count + math.max(1, waiting)
    end
  end
  local since = accepted[submit_uid] or 0
  if count + since + asked > @LIMIT@ then
    slurm.log_user("AssocMaxSubmitJobLimit")
    return slurm.ESLURM_ACCOUNTING_POLICY
  end
  accepted[submit_uid], at = since + asked, os.time()
  return slurm.SUCCESS
end

function slurm_job_modify() return slurm.SUCCESS end

return slurm.SUCCESS
"""
