"""User servers as SLURM jobs, on batchspawner's ground but without its ways.

Nothing here goes through a shell, no server is taken for gone because a question failed, and
one question serves all servers (`hub.slurm.poller`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import batchspawner
from sqlalchemy.orm import object_session

from hub.labfile.schema import Profile
from hub.slurm.addresses import own_addresses
from hub.slurm.cancel import Cancellations
from hub.slurm.cluster import cluster_of
from hub.slurm.commands import Account
from hub.slurm.job_options import job_options
from hub.slurm.orphans import job_name, waiting_file
from hub.slurm.script import Launch, render, server_words
from hub.slurm.submit import Order, submit
from hub.spawners.job_watch import JobWatch
from hub.spawners.partitions import Places, refusal
from hub.spawners.partitions import places as describe
from hub.spawners.startup import StartError
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError
from labkit.slurm.states import COMPLETING

SERVER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/opt/slurm/bin"
_FIRST_ANSWER = 10.0  # seconds that a new hub waits for SLURM's first answer
# Of the hub's own variables; what else it has is not for other machines.
_NOT_OURS = ("VIRTUAL_ENV", "PYTHONPATH", "CONDA_ROOT", "CONDA_DEFAULT_ENV")


class SlurmSpawner(JobWatch, batchspawner.SlurmSpawner):
    """Start the user's server as a job of its owner's."""

    _cancellations: ClassVar[dict[Path, Cancellations]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._starting = False
        self._port: asyncio.Future[int] | None = None
        self._named = 0  # the port, once the server has named it
        self._hurry: asyncio.Task[None] | None = None
        super().__init__(*args, **kwargs)
        scheme = "https" if self.internal_ssl else "http"
        gate = self.settings.local.gate_port
        self.services_url = f"{scheme}://{self.slurm.hub_host}:{gate}"

    # -- what all share ---------------------------------------------------------------

    @property
    def cancellations(self) -> Cancellations:
        """The jobs of this portal that are still to be cancelled."""
        known = self._cancellations.get(self.paths.run)
        if known is None:
            name = job_name(self.paths)
            known = Cancellations(waiting_file(self.paths), name)
            self._cancellations[self.paths.run] = known
            known.resume()
        return known

    @property
    def environments(self) -> Path:
        """Where the compute nodes find the environments."""
        return self.slurm.environments

    async def run_command(self, *_: object, **__: object) -> str:
        """Refuse: batchspawner's way leads through a shell."""
        raise RuntimeError("the hub runs no text as a command")

    # -- what the person chose --------------------------------------------------------

    def partitions(self, profile: Profile) -> tuple[str, ...]:
        """Return the partitions that a profile may run in, the default first."""
        return self.settings.partitions_of(profile)

    async def places(
        self, offered: tuple[Profile, ...], selected: Profile | None, last: object
    ) -> Places:
        """Describe the partitions for the spawn page, as SLURM says."""
        return await describe(
            cluster_of(self.settings), self.settings, offered, selected, last, self.user.name
        )

    # -- what the server gets ---------------------------------------------------------

    def server_command(self, profile: Profile) -> list[str]:
        """Return the command that starts the server on its node."""
        words = server_words(self.slurm, profile.environment)
        folder = self.environments
        if folder.is_dir() and words[0].startswith(str(folder)) and not Path(words[0]).is_file():
            raise StartError(
                f"The environment {profile.environment!r} of the profile {profile.title!r} is not"
                f" in {folder}. An administrator can install it with 'labhub up'.",
                status_code=503,
                reason="environment",
            )
        return words

    def get_env(self) -> dict[str, str]:
        """Return the server's variables: the portal's, and nothing of the hub's machine."""
        env: dict[str, str] = super().get_env()
        for name in _NOT_OURS:
            env.pop(name, None)
        profile = self.profile
        own = profile is not None and profile.environment in self.slurm.software
        first = "" if own or not profile else f"{self.environments / profile.environment / 'bin'}:"
        env["PATH"] = f"{first}{SERVER_PATH}"
        env["LOGNAME"] = self.user.name
        env["LABHUB_WARN_SECONDS"] = str(int(self.slurm.warn_before.total_seconds()))
        if conf := os.environ.get("SLURM_CONF"):
            env["SLURM_CONF"] = conf
        env |= self.certificate_env()
        return {name: value for name, value in env.items() if value is not None}

    # -- starting ---------------------------------------------------------------------

    async def launch(self) -> tuple[str, int]:
        """Submit the job, wait until it runs, and return where its server is.

        Where this fails, the job is cancelled. Where it is only cut short, JupyterHub calls `stop`
        next; or the hub itself ends, and the next one goes on with the job.
        """
        profile = self.profile
        if profile is None:
            raise StartError("No profile was chosen.", status_code=400)
        account = await asyncio.to_thread(self.account)
        await self._check_place(profile)
        self._last_row, self._starting, self._named = None, True, 0
        self._port = asyncio.get_running_loop().create_future()
        try:
            self.say(f"Sending its job to SLURM (partition {self.partition})")
            self.job_id = await self._submit(account, profile)
            self.poller.watch(self.job_id)
            self._remember()
            return await self._placed(self.job_id, self._port)
        except Exception as error:
            if isinstance(error, StartError):
                await self.copy_log()
            self.give_up()
            raise
        finally:
            self._port.cancel()
            self._port = None

    async def _check_place(self, profile: Profile) -> None:
        """Refuse what the spawn page does not offer, whichever way it was asked for."""
        reason = await refusal(self.settings, profile, self.partition, self.user.name)
        if reason:
            raise StartError(
                f"{profile.title} cannot start in the partition {self.partition}:"
                f" {reason[0].lower()}{reason[1:]}. Choose another profile or partition.",
                status_code=400,
                reason="refused",
            )

    async def _submit(self, account: Account, profile: Profile) -> str:
        view = await cluster_of(self.settings).describe()
        order = Order(
            name=job_name(self.paths),
            partition=self.partition,
            profile=profile,
            log=self.home_log(account),
            wanted=job_options(self.settings, profile, [g.name for g in self.user.groups]),
            counts_memory=view.counts_memory,
        )
        launch = Launch(
            addresses=own_addresses(),
            accounts=[os.geteuid()],
            seconds=int(self.slurm.time_limit.total_seconds()),
        )
        script = render(
            self.slurm, profile.environment, self.get_args(), launch, gpus=profile.gpus > 0
        )
        self._since = time.monotonic()
        work = asyncio.ensure_future(submit(order, self.slurm, account, script, self.get_env()))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(self._abandon_late)
            raise
        except ValueError as error:
            raise StartError(f"The job cannot be described: {error}.") from None
        except SlurmRefusedError as error:
            raise StartError(
                f"SLURM does not take the job: {error}. Choose another profile or partition, or"
                " ask an administrator.",
                status_code=400,
                reason="refused",
            ) from None
        except SlurmUnavailableError as error:
            raise StartError(
                f"SLURM does not answer at the moment ({error}). Try again in some minutes.",
                status_code=503,
                reason="slurm",
            ) from None

    async def resume(self) -> tuple[str, int]:
        """Go on with the job of an earlier hub's start."""
        port = self._port = asyncio.get_running_loop().create_future()
        if self._named:
            port.set_result(self._named)
        try:
            return await self._placed(self.job_id, port, resumed=True)
        except StartError:
            await self.copy_log()
            raise
        finally:
            port.cancel()
            self._port = None

    def take_port(self, port: int) -> bool:
        """Take the port that the server has named; False where it did that before.

        `hub.slurm.api_handlers` has made sure that it is this server's token.
        """
        if self._starting and port == self._named:
            return True  # it has not heard that an earlier hub took it
        if self._port is None or self._port.done():
            return False
        self._named = port
        self._remember()
        self._port.set_result(port)
        return True

    async def _wait_until_it_answers(self, where: Any) -> None:
        try:
            await super()._wait_until_it_answers(where)
        finally:
            self._starting = False

    # -- its job ----------------------------------------------------------------------

    def _remember(self) -> None:
        """Keep the job's number at once: JupyterHub does so only when the server is ready."""
        db = object_session(self.orm_spawner)
        if db is not None:
            self.orm_spawner.state = self.get_state()
            db.commit()

    def give_up(self) -> None:
        """Cancel the job for certain."""
        if self.job_id:
            self.poller.forget(self.job_id)
            self.cancellations.later(self.job_id, self.user.name)
            self.job_id = ""

    def _abandon_late(self, work: asyncio.Future[str]) -> None:
        """Cancel a job whose number came after nobody waited for it any more."""
        if not work.cancelled() and work.exception() is None:
            self.cancellations.later(work.result(), self.user.name)

    def get_state(self) -> dict[str, Any]:
        """Return what a new hub needs to find the server again."""
        state: dict[str, Any] = super().get_state()
        state.pop("job_status", None)
        if self.job_id and self._starting:
            state |= {"starting": True, "port": self._named}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Find a server again that an earlier hub has started."""
        super().load_state(state)
        if not self.job_id:
            return
        self._since = time.monotonic()
        if not state.get("starting"):
            self.poller.watch(self.job_id)
        elif self.orm_spawner.server is None:
            self.give_up()  # it was cancelled just before that hub ended
        else:
            self._starting, self._named = True, int(state.get("port", 0))
            self.poller.watch(self.job_id)
            self.resume_start()

    def clear_state(self) -> None:
        """Forget the server."""
        if self.job_id:
            self.poller.forget(self.job_id)
        super().clear_state()
        self._starting = False

    async def poll(self) -> int | None:
        """Return None while the job lives, or nothing certain is known; else its status."""
        if self.undecided:
            return await self.decided()
        job_id = self.job_id
        if not job_id:
            return 0
        if self.poller.began <= self._since:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01 if self._starting else _FIRST_ANSWER):
                    await self.poller.news(self._since)
        elif self._starting and (self._hurry is None or self._hurry.done()):
            # Somebody waits: an end should be seen before the next regular look.
            self._hurry = asyncio.ensure_future(self.poller.news(time.monotonic()))
        if not self.poller.gone(job_id, self._since):
            self._completing = 0.0
            return None
        row = self.poller.row(job_id)
        if row is not None and self._clears_up(row):
            return None
        self._last_row = row or self._last_row
        if self.ended is None and not self._starting:
            await self.copy_log()  # SLURM may have said there why
        status = 0 if self._last_row and self._last_row.state in ("COMPLETED", COMPLETING) else 1
        self.note_end(status)
        return status

    async def stop(self, now: bool = False) -> None:  # noqa: ARG002 - SLURM is patient itself
        """Cancel the job; where SLURM does not answer, as soon as it does."""
        if not self.job_id:
            return
        job_id = self.job_id
        self.poller.forget(job_id)
        await self.cancellations.cancel(job_id, self.user.name)
        self.clear_state()
