"""Where the portal keeps its state: everything that is not in the repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Paths:
    """The folders and files of one portal.

    Attributes
    ----------
    state : Path
        The state folder; all else is below it, but for the environments where
        ``LABHUB_ENVS`` names a folder that several portals share.
    envs : Path
        One folder per environment (``envs/notebook/bin/python``).
    """

    state: Path
    envs: Path

    @classmethod
    def from_environment(cls) -> Paths:
        """Find the state folder: ``LABHUB_STATE``, /var/lib/labhub for root, else XDG.

        The environments are in ``LABHUB_ENVS``, else in its ``envs``, or where that leads to.
        """
        named = os.environ.get("LABHUB_STATE")
        if named:
            state = Path(named)
        elif os.geteuid() == 0:
            state = Path("/var/lib/labhub")
        else:
            data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
            state = Path(data) / "labhub"
        state = state.absolute()
        envs = state / "envs"
        if envs.is_symlink():  # programs in there name the place itself, which nodes know
            envs = state / envs.readlink()
        return cls(state=state, envs=Path(os.environ.get("LABHUB_ENVS") or envs))

    @property
    def lab_file(self) -> Path:
        """The lab file in force."""
        return self.state / "lab.yaml"

    @property
    def secrets(self) -> Path:
        """The secrets folder, mode 0700."""
        return self.state / "secrets"

    @property
    def database(self) -> Path:
        """The hub's SQLite database."""
        return self.state / "jupyterhub.sqlite"

    @property
    def log(self) -> Path:
        """Logs of the portal's own processes and, in ``servers/``, of the user servers."""
        return self.state / "log"

    @property
    def audit_log(self) -> Path:
        """Who changed what; see `hub.portal.audit`."""
        return self.log / "audit.log"

    def server_log(self, user: str, server: str = "") -> Path:
        """Return the log of a user server.

        Between the two names is a sign that neither can hold, so that no two servers share one.
        """
        name = "+".join(quote(part, safe="") for part in (user, server) if part)
        return self.log / "servers" / f"{name}.log"

    def server_logs(self, user: str) -> list[Path]:
        """Return the logs of all servers of a person, those that are full included."""
        folder, name = self.log / "servers", quote(user, safe="")
        ends = (".log", ".log.1")
        return sorted(
            path
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.name.endswith(ends)
            and path.name.removesuffix(".1").removesuffix(".log").partition("+")[0] == name
        )

    @property
    def run(self) -> Path:
        """Sockets, process ids and the supervisor's configuration."""
        return self.state / "run"

    @property
    def backups(self) -> Path:
        """What ``labhub backup`` writes."""
        return self.state / "backups"

    def env_bin(self, environment: str, program: str) -> Path:
        """Return the path of a program in a named environment."""
        return self.envs / environment / "bin" / program
