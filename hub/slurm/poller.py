"""One squeue for all servers together, however many spawners ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType

from hub.slurm.commands import run_slurm
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.queue import Columns, Job
from labkit.slurm.states import COMPLETING, ENDED

log = logging.getLogger(__name__)

#: Nothing that a job's owner writes freely is asked for: a line break in it would be a forged row.
COLUMNS = Columns(
    ("id", "state", "reason", "partition", "user", "priority", "submitted", "start", "end", "host")
)


def parse(text: str) -> dict[str, Job]:
    """Read squeue's answer with `COLUMNS`, by the jobs' numbers.

    Raises
    ------
    UnreadableError
        One line is anything else: then no line can be trusted.
    """
    return {job.id: job for job in COLUMNS.parse(text)}


def over(job: Job) -> bool:
    """Whether no server of this job lives any more."""
    return job.state in ENDED or job.state == COMPLETING


class Allowance:
    """A bucket of queries: a few at once, then one per so many seconds.

    Parameters
    ----------
    burst : int
        So many at once.
    every : float
        Seconds after which there is one more; ``burst + 60 / every`` is the most per minute.
    clock : callable, optional
        Returns seconds.
    """

    def __init__(
        self, burst: int, every: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.burst = burst
        self.every = every
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def wait(self) -> float:
        """Return the seconds until there is one."""
        now = self._clock()
        self._left = min(self.burst, self._left + (now - self._at) / self.every)
        self._at = now
        return max(0.0, (1 - self._left) * self.every)

    def take(self) -> None:
        """Use one up."""
        self.wait()
        self._left -= 1


class Poller:
    """What SLURM says of all jobs, asked once for everybody.

    While a job is watched it asks every `interval` seconds, and sooner when somebody waits
    for news (`news`), but never more than ten times a minute. It leaves the controller nine
    tenths of the time where answers are slow, and asks more seldom while there are none.

    Parameters
    ----------
    interval : float
        Seconds between two queries when nobody waits.
    run : callable, optional
        As `hub.slurm.commands.run_slurm`.
    allowance : Allowance, optional
        The most queries.
    """

    LONGEST = 120.0  # seconds between two queries, however bad it is

    def __init__(
        self,
        interval: float = 20.0,
        run: Callable[..., Awaitable[str]] = run_slurm,
        allowance: Allowance | None = None,
    ) -> None:
        self.interval = interval
        self.jobs: Mapping[str, Job] = MappingProxyType({})
        self.ended: dict[str, Job] = {}
        self.began = 0.0
        self.failing = ""
        self._run = run
        self._allowance = allowance or Allowance(burst=4, every=10.0)
        self._watched: set[str] = set()
        self._waiters: list[tuple[float, asyncio.Future[None]]] = []
        self._awake = asyncio.Event()
        self._answered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last = 0.0  # the last query's begin
        self._pause = interval

    # -- who asks ---------------------------------------------------------------------

    def watch(self, job_id: str) -> None:
        """Follow a job until `forget`; call it on the event loop."""
        if not self._watched:
            self._last = max(self._last, time.monotonic() - self.interval / 2)
        self._watched.add(job_id)
        self._wake()

    def forget(self, job_id: str) -> None:
        """Follow it no more."""
        self._watched.discard(job_id)
        self.ended.pop(job_id, None)

    async def news(self, since: float) -> None:
        """Wait for a good answer to a question that was asked after `since`.

        Parameters
        ----------
        since : float
            By ``time.monotonic()``.
        """
        if self.began > since:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((since, future))
        self._wake()
        try:
            await future
        finally:
            self._waiters = [entry for entry in self._waiters if entry[1] is not future]

    async def next(self) -> None:
        """Wait for the next good answer, whenever it comes."""
        await self._answered.wait()

    def row(self, job_id: str) -> Job | None:
        """Return what is last known of a job: in the queue, or how it ended."""
        return self.jobs.get(job_id) or self.ended.get(job_id)

    def gone(self, job_id: str, since: float) -> bool:
        """Whether SLURM, asked after `since`, has said that a job is no more.

        A query that failed, was not understood or is too old says nothing: False.
        """
        if self.began <= since:
            return False
        row = self.jobs.get(job_id)
        return row is None or over(row)

    # -- asking -----------------------------------------------------------------------

    def _wake(self) -> None:
        self._awake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._watched or self._waiters:
            wait = self._allowance.wait()
            if not self._waiters or self.failing:
                wait = max(wait, self._last + self._pause - time.monotonic())
            if wait > 0:
                self._awake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), wait)
                continue
            await self._ask()

    async def _ask(self) -> None:
        began = self._last = time.monotonic()
        self._allowance.take()
        try:
            rows = parse(await self._run("squeue", "-h", "-a", "-o", COLUMNS.format))
            missing = [key for key in self._watched if key not in rows and key not in self.ended]
            if missing:
                for key, row in (await self._endings(missing)).items():
                    # One that came into the queue between the two questions is alive.
                    (self.ended if over(row) else rows)[key] = row
        except SlurmUnavailableError as error:
            self._pause = min(self.LONGEST, max(self.interval, 2 * self._pause))
            if not self.failing:
                log.warning("SLURM does not answer; servers are taken to go on: %s", error)
            self.failing = str(error)
            return
        taken = time.monotonic() - began
        self._pause = min(self.LONGEST, max(self.interval, 10 * taken))
        if self.failing:
            log.warning("SLURM answers again")
            self.failing = ""
            self._pause = self.interval  # how long that one took says nothing of the next
        self.jobs = MappingProxyType(rows)
        self.began = began
        self._answered.set()
        self._answered = asyncio.Event()
        waiting, self._waiters = self._waiters, []
        for since, future in waiting:
            if began <= since:
                self._waiters.append((since, future))
            elif not future.done():
                future.set_result(None)

    async def _endings(self, job_ids: Iterable[str]) -> dict[str, Job]:
        """Ask how jobs ended: SLURM remembers them for some minutes (MinJobAge)."""
        ids = ",".join(sorted(job_ids))
        self._allowance.take()
        try:
            return parse(
                await self._run("squeue", "-h", "-a", "-t", "all", "-j", ids, "-o", COLUMNS.format)
            )
        except SlurmRefusedError:  # "Invalid job id": it remembers none of them
            return {}


_SHARED: list[Poller] = []


def shared(per_minute: int = 10) -> Poller:
    """Return the one poller of this process.

    Parameters
    ----------
    per_minute : int
        The most questions in any minute; the first call decides.
    """
    if not _SHARED:
        burst = max(1, 4 * per_minute // 10)
        allowance = Allowance(burst, 60.0 / max(1, per_minute - burst))
        # A third of them where nobody waits; the rest is for those who do.
        _SHARED.append(Poller(interval=max(1.0, 200.0 / per_minute), allowance=allowance))
    return _SHARED[0]
