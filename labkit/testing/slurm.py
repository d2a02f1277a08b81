"""A real SLURM of plain processes, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from labkit.base.ports import free_ports
from labkit.slurm import commands
from labkit.slurm.commands import UnreadableError
from labkit.slurm.nodes import NODES, Node, parse_nodes
from labkit.slurm.queue import Columns
from labkit.testing.configuration import EMPTIED, Layout, write
from labkit.testing.keeper import Kept
from labkit.testing.machine import (
    ClusterError,
    answers,
    clean_environment,
    ends,
    programs,
)

_LONGEST = 60  # characters of the folder: sockets below it have at most 107
_COLUMNS = Columns(("id", "state", "name"))


class SlurmCluster:
    """A SLURM cluster on this machine: slurmctld, several slurmd and munged, nothing simulated.

    All run as plain processes in one folder, on free ports of 127.0.0.1, without accounting. Any
    number of clusters live side by side. At the end nothing is left behind, also when the process
    that started it is killed. Started by root, every Unix user of the machine can submit jobs that
    run under that user's account; started by anybody else, only that user can.

    Parameters
    ----------
    folder : path, optional
        Where everything is kept: configuration, logs, spooled jobs; it stays there at the end.
        Without it a temporary folder is used and removed. Its path has at most 60 characters, and
        other users who submit must be able to pass through the folders above it.
    nodes : int
        How many nodes; they are called node1, node2, ….
    cpus : int
        Cores of each node, as SLURM counts them: they may be more than this machine has.
    memory : int
        Memory of each node in MB, as SLURM counts it.
    partitions : mapping of str to mapping, optional
        Name and slurm.conf's settings of each partition, e.g.
        ``{"main": {"Default": "YES"}, "short": {"Nodes": "node1", "MaxTime": "10"}}``.
        Default: one partition, main, with all nodes and no limit.
    features : mapping of str to str, optional
        Node -> its features, for ``--constraint``: ``{"node4": "highmem,fast"}``.
    gres : mapping of str to str, optional
        Node -> its generic resources, counted only: ``{"node4": "gpu:2"}``.
    config : mapping, optional
        More lines of slurm.conf, or other values than the ones written here.
    max_array_size : int, optional
        slurm.conf's MaxArraySize: the largest array index plus one. SLURM's default is 1001.
    max_submit_jobs : int, optional
        Most jobs and array tasks that one user may have in the queue. SLURM keeps this limit
        (MaxSubmitJobs) in its accounting database; here a submit plug-in refuses in its place,
        with the same error code.

    Attributes
    ----------
    folder : Path
        Where everything is kept.
    conf : Path
        The slurm.conf.
    environment : dict of str to str
        What sbatch and the other commands need: ``SLURM_CONF``.
    nodes : tuple of str
        Names of the nodes.

    Raises
    ------
    ClusterError
        If SLURM is not installed, or the cluster does not start.
    ValueError
        If the layout is impossible; all problems are named at once.

    Examples
    --------
    >>> with SlurmCluster(nodes=2) as cluster:  # doctest: +SKIP
    ...     cluster.command("sbatch", "--wrap", "hostname")
    'Submitted batch job 1'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        nodes: int = 4,
        cpus: int = 16,
        memory: int = 16_000,
        partitions: Mapping[str, Mapping[str, object]] | None = None,
        features: Mapping[str, str] | None = None,
        gres: Mapping[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        max_array_size: int | None = None,
        max_submit_jobs: int | None = None,
    ) -> None:
        self._layout = Layout(
            nodes=nodes,
            cpus=cpus,
            memory=memory,
            partitions=partitions,
            features=features or {},
            gres=gres or {},
            config=config or {},
            max_array_size=max_array_size,
            max_submit_jobs=max_submit_jobs,
        )
        problems = self._layout.problems()
        if folder is not None and len(str(Path(folder).resolve())) > _LONGEST:
            problems.append(
                f"folder {folder}: longer than {_LONGEST} characters, SLURM's sockets would not"
                " fit; leave it out for a short temporary one"
            )
        if problems:
            raise ValueError("; ".join(problems))
        self._programs = programs()
        self._own = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="slurm-", dir="/tmp")).resolve()
        self.conf = self.folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}
        self.nodes = self._layout.names
        # Daemons that are started again later, within a test, do not take over its HOME and the
        # like: a test that ends what was started from its home would end them too.
        self._inherited = clean_environment()
        self._remover: Kept | None = None
        self._munge: Kept | None = None
        self._controller: Kept | None = None
        self._slurmds: dict[str, list[Kept]] = {name: [] for name in self.nodes}

    # --- the whole --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start everything, wait until all nodes are idle, and return the cluster."""
        for left in reversed(range(3)):
            self._write()
            try:
                self.repair()
                self.wait_idle()
            except ClusterError:
                taken = "Address already in use" in self.logs()
                if left and taken:  # another process was quicker: other ports
                    self._end()
                    continue
                self.stop()
                raise
            except BaseException:
                self.stop()
                raise
            break
        return self

    def repair(self) -> None:
        """Start whatever does not run, of what was stopped or killed."""
        self.start_munge()
        self.start_controller()
        for name in self.nodes:
            self.start_node(name, wait=False)

    def stop(self) -> None:
        """End everything: daemons, jobs, and whatever the jobs have started."""
        self._end()
        if self._remover is not None:
            self._remover.end()
            self._remover = None
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        for name in self.nodes:
            self.kill_node(name)
        for kept in (self._controller, self._munge):
            if kept is not None:
                kept.end()
        self._controller = self._munge = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- the parts --------------------------------------------------------------------------------

    def start_munge(self) -> None:
        """Start the authentication daemon, and wait until it answers."""
        if self._munge is not None and self._munge.running:
            return
        run = self.folder / "run"
        self._munge = self._keep(
            "munged",
            "--foreground",
            f"--key-file={self.folder}/secret/munge.key",
            f"--seed-file={self.folder}/secret/seed",
            f"--socket={self.folder}/munge/socket",
            f"--pid-file={run}/munged.pid",
            "--force",  # of a folder above ours, /tmp for one, munged would complain
        )
        self._until(lambda: answers(self.folder / "munge/socket"), "munged answers", 60.0)

    def stop_munge(self, *, kill: bool = False) -> None:
        """Stop the authentication daemon: every command of SLURM then fails, after 2 s of trying.

        Parameters
        ----------
        kill : bool
            By ``kill -9``: its socket stays, and commands try for most of a minute.
        """
        if self._munge is not None:
            self._munge.signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._munge.end()
            self._munge = None

    def start_controller(self, *, wait: bool = True) -> None:
        """Start slurmctld; with ``wait``, return when it answers."""
        if self._controller is None or not self._controller.running:
            self._controller = self._keep("slurmctld", "-D", "-f", str(self.conf))
        if wait:
            self._until(self._controller_answers, "slurmctld answers", 90.0)

    def stop_controller(self, *, kill: bool = False) -> None:
        """Stop slurmctld; jobs run on.

        Parameters
        ----------
        kill : bool
            By ``kill -9``: what it has not yet saved is lost. Otherwise it saves all.
        """
        if self._controller is not None:
            self._controller.signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._controller.end()
            self._controller = None

    def start_node(self, name: str, *, wait: bool = True) -> None:
        """Start the slurmd of a node; with ``wait``, return when slurmctld counts on it."""
        living = self._node(name)
        if not any(kept.running for kept in living):
            (self.folder / "spool" / name).mkdir(exist_ok=True)
            # -b: unless its jobs live on, it tells that it comes from a fresh start of its machine.
            fresh = [] if any(kept.alive for kept in living) else ["-b"]
            words = ["-D", "-N", name, "-f", str(self.conf), *fresh]
            living.append(self._keep("slurmd", *words, name=name))
        if wait:
            self._until(lambda: self._awake(name), f"{name} is up", 90.0)

    def kill_node(self, name: str, *, jobs: bool = True) -> None:
        """Kill a node.

        Parameters
        ----------
        name : str
            Which.
        jobs : bool
            With all that runs on it, as when its power fails. Otherwise only slurmd is killed: its
            jobs run on, unseen.
        """
        living = self._node(name)
        for kept in living:
            if jobs:
                kept.end()
            else:
                kept.signal(signal.SIGKILL)
        if jobs:
            living.clear()

    def _node(self, name: str) -> list[Kept]:
        if name not in self._slurmds:
            raise ValueError(f"there is no node {name!r}; valid: {', '.join(self.nodes)}")
        return self._slurmds[name]

    # --- what tests ask ---------------------------------------------------------------------------

    def command(
        self, *argv: str, user: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> str:
        """Run one of SLURM's commands (or any other) against this cluster.

        Parameters
        ----------
        *argv : str
            The command, e.g. ``"squeue", "-h"``.
        user : str, optional
            Unix account to run it as; needs root.
        check : bool
            Raise where it fails; otherwise its output and errors are returned.
        timeout : float
            Seconds.

        Returns
        -------
        str
            What it has written, without white space around it.
        """
        more: dict[str, Any] = {}
        env = {**clean_environment(), **self.environment}
        if user is not None:
            person = pwd.getpwnam(user)
            groups = os.getgrouplist(user, person.pw_gid)
            more = {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": groups}
            env |= {"USER": user, "LOGNAME": user, "HOME": person.pw_dir}
        words = [self._programs.get(argv[0], argv[0]), *argv[1:]]
        done = commands.call(words, env=env, timeout=timeout, **more)
        if check and done.returncode:
            text = f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}"
            self._ended(text)
            raise ClusterError(text)
        said: str = done.stdout if check else done.stdout + done.stderr
        return said.strip()

    def wait_idle(self, seconds: float = 60.0) -> None:
        """Wait until all nodes are up and no job is left on them or in the queue."""

        def idle() -> bool:
            idle = {node.name for node in self._states() if node.awake and node.state == "idle"}
            return idle >= set(self.nodes) and not self.queue()

        self._until(idle, "all nodes are idle", seconds)

    def queue(self) -> list[str]:
        """Return what squeue lists, one text ``JOBID STATE NAME`` per job or array task."""
        said = self.command("squeue", "-h", "-r", "-o", _COLUMNS.format)
        return [f"{job.id} {job.state} {job.name}" for job in _COLUMNS.parse(said)]

    def cancel_all(self) -> None:
        """Cancel every job that may be cancelled, and wait until all are gone."""
        if jobs := {line.split("_")[0].split()[0] for line in self.queue()}:
            self.command("scancel", *jobs, check=False)
        self._until(lambda: not self.queue(), "no job is left", 60.0)
        if self._layout.max_submit_jobs is not None:
            new = self.folder / f"{EMPTIED}.new"
            new.write_text(str(time.monotonic_ns()))
            new.rename(self.folder / EMPTIED)

    def logs(self, lines: int = 20) -> str:
        """Return the end of every daemon's log."""
        return ends(self.folder / "log", lines)

    # --- inside -----------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write the folder, with new ports."""
        # No outgoing connection takes them: a controller that was down finds its port free again.
        write(self._layout, self.folder, free_ports(1 + self._layout.nodes))
        if self._own and self._remover is None:
            self._remover = Kept([], self._inherited, Path(os.devnull), remove=self.folder)

    def _keep(self, program: str, *arguments: str, name: str = "") -> Kept:
        log = self.folder / "log" / f"{name or program}.out"
        env = {**self._inherited, **self.environment}
        return Kept([self._programs[program], *arguments], env, log)

    def _controller_answers(self) -> bool:
        return "is UP" in self.command("scontrol", "ping", check=False)

    def _states(self) -> tuple[Node, ...]:
        try:
            return parse_nodes(self.command("scontrol", *NODES))
        except (ClusterError, UnreadableError):
            return ()

    def _awake(self, name: str) -> bool:
        return any(node.name == name and node.awake for node in self._states())

    def _ended(self, text: str = "") -> None:
        """Complain where a daemon that was not stopped has ended."""
        for name, kept in (("munged", self._munge), ("slurmctld", self._controller)):
            if kept is not None and not kept.running:
                raise ClusterError("\n".join([f"{name} has ended.", text, self.logs()]))

    def _until(self, true: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            self._ended()
            if time.monotonic() > deadline:
                raise ClusterError(f"Not so after {seconds:g} s: {what}.\n{self.logs()}")
            time.sleep(0.05)
