"""The log of a server that runs elsewhere: in its owner's home, a copy of its end here."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hub.sandbox import AccountError
from hub.slurm.commands import Account
from hub.slurm.owner import account_of, read_tail
from hub.spawners.base import LabSpawner
from hub.spawners.startup import StartError
from labkit.base import files
from labkit.slurm.commands import SlurmUnavailableError

_LOG = 2.0  # seconds between two looks at a starting server's log


class JobLog(LabSpawner):
    """A spawner whose servers write their log into their owner's home."""

    def account(self) -> Account:
        """Return the Unix account of the server's owner.

        Raises
        ------
        StartError
            There is none that may have a server.
        """
        try:
            return account_of(self.settings, self.user.name)
        except AccountError as error:
            raise StartError(f"No server for {self.user.name}: {error}.", status_code=403) from None

    def home_log(self, account: Account) -> str:
        """Return the log's path on the nodes."""
        server = f"-{self.name}" if self.name else ""
        return f"{account.home}/.labhub-server{server}.log"

    def apply(self, options: Any) -> None:
        """Begin with an empty log: it is a copy, made anew by each start."""
        self.log_file.unlink(missing_ok=True)
        super().apply(options)

    async def copy_log(self) -> None:
        """Bring the end of the log here, as its owner may read it."""
        with contextlib.suppress(SlurmUnavailableError, StartError, OSError):
            account = await asyncio.to_thread(self.account)
            text = await read_tail(account, self.home_log(account))
            await asyncio.to_thread(self._write_log, text)

    def log_end(self) -> str:
        """Return the log's end as it was copied last."""
        try:
            return self.log_file.read_text(errors="replace")
        except OSError:
            return ""

    def _write_log(self, text: str) -> None:
        self.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomic(self.log_file, text)

    async def _wait_until_it_answers(self, where: Any) -> None:
        copies = asyncio.ensure_future(self._keep_copying())
        try:
            await super()._wait_until_it_answers(where)
        except StartError:
            await self.copy_log()
            raise
        finally:
            copies.cancel()

    async def _keep_copying(self) -> None:
        while True:
            await asyncio.sleep(_LOG)
            await self.copy_log()
