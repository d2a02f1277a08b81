"""A user server's job while it starts, runs and ends: where it is, what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any, ClassVar

from traitlets import Integer

from hub.labfile.slurm import Slurm
from hub.slurm import poller as pollers
from hub.slurm.addresses import Addresses
from hub.slurm.cluster import cluster_of
from hub.slurm.commands import Account
from hub.slurm.poller import Poller, over
from hub.slurm.start_limits import StartLimits
from hub.slurm.unreached import UnreachedHub
from hub.slurm.waiting import wait_of
from hub.spawners.internal_ssl import InternalSSL
from hub.spawners.joblog import JobLog
from hub.spawners.resume import ResumeStart
from hub.spawners.startup import StartError
from labkit.base.units import format_duration, format_size
from labkit.slurm.commands import SlurmUnavailableError
from labkit.slurm.exit_reasons import how, over_memory
from labkit.slurm.queue import Job
from labkit.slurm.states import COMPLETING, RUNNING, STARTING, WAITING

_LOOKS = (2.0, 4.0, 8.0)  # seconds after the submission; then as the poller looks anyway
_LOG = 3.0  # seconds between two looks at the log of a job that has not named its port
_SETTLES = 1.0  # seconds after which SLURM mostly knows how a job ended
_CLEARS_UP = 40.0  # seconds to wait for that: a job's processes have KillWait, 30, to end


class JobWatch(InternalSSL, ResumeStart, JobLog):
    """A spawner that knows the job of its server by `hub.slurm.poller`."""

    queries_per_minute = Integer(
        10, min=2, config=True, help="How often SLURM is asked for its queue, at most."
    )

    _addresses: ClassVar[Addresses] = Addresses()

    job_id: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._since = 0.0  # SLURM's answers from before say nothing of this job
        self._last_row: Job | None = None  # how its job ended, as far as SLURM has said
        self._completing = 0.0
        super().__init__(*args, **kwargs)

    @property
    def poller(self) -> Poller:
        """The one that asks for all servers."""
        return pollers.shared(self.queries_per_minute)

    @property
    def slurm(self) -> Slurm:
        """The lab file's section."""
        section = self.settings.slurm
        if section is None:
            raise StartError("The lab file has no section slurm.", status_code=503)
        return section

    @property
    def job(self) -> Job | None:
        """What is last known of the server's job."""
        return self.poller.row(self.job_id) if self.job_id else None

    @property
    def ends_at(self) -> float | None:
        """When the job's time limit is over, as SLURM has it now."""
        job = self.job
        return job.end if job is not None and job.state in RUNNING else None

    @property
    def remark(self) -> str:
        """That the job is suspended: it answers nobody until it is resumed."""
        job = self.job
        if job is not None and job.state in ("SUSPENDED", "STOPPED"):
            return (
                "The cluster has suspended it: it does not answer, and goes on where it was when"
                " it is resumed. Your lab's administrator can say why."
            )
        return ""

    # -- its start --------------------------------------------------------------------

    async def _placed(
        self, job_id: str, port: asyncio.Future[int], *, resumed: bool = False
    ) -> tuple[str, int]:
        """Wait until the job has named its port and SLURM its node."""
        watchers = [
            asyncio.ensure_future(self._follow(job_id, port)),
            asyncio.ensure_future(self._read_log(job_id, port, resumed=resumed)),
        ]
        try:
            number = await port
        finally:
            for watcher in watchers:
                watcher.cancel()
        if self.startup:
            self.startup.waits(None)
        self.say("Its job runs: connecting")
        self.ip, self.port = await self._node_address(job_id), number
        return self.ip, self.port

    async def _node_address(self, job_id: str) -> str:
        named = time.monotonic()
        while True:
            row = self.poller.row(job_id)
            if row is not None and row.host and row.state not in WAITING:
                try:
                    address = await self._addresses.of(row.host, self._since)
                    return await self.certified(row.host, address)
                except SlurmUnavailableError as error:
                    raise StartError(f"The server's node cannot be found: {error}.") from None
            if self.poller.gone(job_id, named):
                raise StartError(f"The server did not start: {self._how_ended(job_id)}.")
            await self.poller.news(time.monotonic())

    async def _follow(self, job_id: str, port: asyncio.Future[int]) -> None:
        """Tell the person what the job waits for; fail where it is gone."""
        said = ""
        began = time.monotonic()
        limits = StartLimits(self.slurm, self.startup.elapsed if self.startup else 0.0)
        looks = list(_LOOKS)
        while not port.done():
            if looks:
                await asyncio.sleep(max(0.0, began + looks.pop(0) - time.monotonic()))
                await self.poller.news(time.monotonic())
            else:
                await self.poller.next()
            if self.poller.gone(job_id, self._since):
                await self._settle(job_id)
                self._last_row = self.poller.row(job_id)
                text = f"The server did not start: {self._how_ended(job_id)}."
                if not port.done():
                    port.set_exception(StartError(text, reason="exited"))
                return
            row = self.poller.row(job_id)
            if row is not None and (late := limits.verdict(row)) and not port.done():
                text = f"The server did not start: {late}."
                port.set_exception(StartError(text, status_code=503, reason="timeout"))
                return
            text = self._waiting(row) if row is not None else said
            if text != said:
                said = text
                self.say(text)
            if row is not None and self.startup:
                view = await cluster_of(self.settings).describe()
                wait = wait_of(row, self.poller.jobs.values(), view)
                self.startup.waits(wait.event() if wait else None)

    async def _read_log(self, job_id: str, port: asyncio.Future[int], *, resumed: bool) -> None:
        """Fail where the job's own log says that its node does not reach the hub."""
        unreached = UnreachedHub(resumed=resumed)
        while not port.done():
            await asyncio.sleep(_LOG)
            row = self.poller.row(job_id)
            if row is None or row.state not in RUNNING:
                continue
            await self.copy_log()
            why = unreached.verdict(self.startup.tail() if self.startup else "")
            if why and not port.done():
                text = (
                    f"The server did not start: {why}. Tell your lab's administrator:"
                    " 'labhub doctor --node' looks for the cause."
                )
                port.set_exception(StartError(text, status_code=503, reason="unreached"))

    async def _settle(self, job_id: str) -> None:
        """Let SLURM say how a job ended that it is still clearing up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEARS_UP):
                while (row := self.poller.row(job_id)) and row.state == COMPLETING:
                    await asyncio.sleep(_SETTLES)
                    await self.poller.news(time.monotonic())

    def _waiting(self, row: Job) -> str:
        if row.state in WAITING:
            return f"Waiting in the queue of the partition {row.partition}"
        if row.state in STARTING:
            return f"The node {row.host} is being started or prepared"
        return f"Its job runs on {row.host}: starting the server"

    # -- its end ----------------------------------------------------------------------

    def _clears_up(self, row: Job) -> bool:
        """Whether SLURM is about to say how a job ended, whose processes it is still ending."""
        if row.state != COMPLETING or row.reason == "TimeLimit" or self._stop_pending:
            return False
        now = time.monotonic()
        self._completing = self._completing or now
        return now - self._completing < _CLEARS_UP

    def ending(self, status: int) -> str:  # noqa: ARG002 - SLURM knows more than the status
        """Say in words how the server ended."""
        return self._how_ended(self.job_id, ran=math.inf)

    def _how_ended(self, job_id: str, ran: float = 0.0) -> str:
        memory = format_size(self.profile.memory) if self.profile else "its limit"
        limit = format_duration(self.slurm.time_limit)
        row = self.poller.row(job_id) or self._last_row
        state = row.state if row and over(row) else ""
        words = how(
            state,
            reason=row.reason if row else "",
            ran=max(ran, row.lasted) if row else ran,
            over_memory=over_memory(self.log_end(), job_id),
            memory=memory,
            limit=limit,
            node=row.host if row else "",
            home=self._home(),
        )
        return f"{words} (job {job_id})"

    def _home(self) -> str:
        try:
            return Account.of(self.user.name).home
        except KeyError:
            return ""
