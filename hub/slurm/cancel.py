"""Cancel jobs for certain: also when SLURM does not answer just now, or the hub is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path

from hub.slurm.commands import Account
from hub.slurm.owner import as_owner
from labkit.base import files
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError

log = logging.getLogger(__name__)

FIRST, LONGEST = 2.0, 60.0  # seconds between two tries


class Cancellations:
    """The jobs that are to end, kept in a file until SLURM has said yes.

    Parameters
    ----------
    file : Path
        Holds those that SLURM has not heard of yet.
    name : str
        The name of this portal's jobs: after a restart nothing else is cancelled, whatever
        became of the numbers.
    """

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self._name = name
        self._left: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        with contextlib.suppress(OSError, ValueError):
            self._left = {str(job): str(user) for job, user in json.loads(file.read_text()).items()}

    @property
    def left(self) -> dict[str, str]:
        """The jobs that SLURM has not heard of yet, and whose they are."""
        return dict(self._left)

    async def cancel(self, job_id: str, user: str) -> bool:
        """Cancel a job; False where SLURM did not answer and it will be tried again."""
        try:
            await self._cancel(job_id, user)
        except SlurmUnavailableError as error:
            log.warning("The job %s of %s could not be cancelled yet: %s", job_id, user, error)
            self.later(job_id, user)
            return False
        return True

    def later(self, job_id: str, user: str) -> None:
        """Cancel a job in the background; it is not forgotten before that is done."""
        self._left[job_id] = user
        self._save()
        self.resume()

    def resume(self) -> None:
        """Go on with what is left; call it on the event loop."""
        if self._left and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        pause = FIRST
        while self._left:
            for job_id, user in list(self._left.items()):
                try:
                    await self._cancel(job_id, user, f"--name={self._name}")
                except SlurmUnavailableError:
                    break
                self._left.pop(job_id, None)
                self._save()
            if self._left:
                await asyncio.sleep(pause)
                pause = min(LONGEST, 2 * pause)

    async def _cancel(self, job_id: str, user: str, *more: str) -> None:
        try:
            account = Account.of(user)
        except KeyError:
            log.warning("The job %s is of %s, who has no account any more", job_id, user)
            return
        with contextlib.suppress(SlurmRefusedError):  # it has ended already
            await as_owner(account, "scancel", [*more, "--", job_id])

    def _save(self) -> None:
        try:
            files.write_atomic(self._file, json.dumps(self._left), sync=True)
        except OSError as error:
            log.warning("The list of jobs to cancel cannot be kept: %s", error)
