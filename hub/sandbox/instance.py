"""The names of everything that one portal makes in the kernel, so that two never meet."""

from __future__ import annotations

import hashlib
import pwd
from dataclasses import dataclass
from pathlib import Path

from hub.state.paths import Paths


@dataclass(frozen=True)
class Instance:
    """One portal on this host, told apart by its state folder.

    Attributes
    ----------
    id : str
        Six hexadecimal digits.
    folder : Path
        Holds one folder per user server: its /tmp and its resolv.conf.
    """

    id: str
    folder: Path

    @classmethod
    def of(cls, paths: Paths) -> Instance:
        """Return the instance that a state folder stands for."""
        digest = hashlib.sha256(str(paths.state.resolve()).encode()).hexdigest()
        return cls(id=digest[:6], folder=paths.run / "boxes")

    def account(self, name: str) -> str:
        """Return the Unix account of one of the portal's own programs."""
        return f"lh{self.id}-{name}"

    @property
    def gate_account(self) -> str:
        """The gate's Unix account: every portal on a machine has its own."""
        return self.account("gate")

    def gate_uid(self) -> int | None:
        """Return the number of the gate's account, None where there is none."""
        try:
            return pwd.getpwnam(self.gate_account).pw_uid
        except KeyError:
            return None

    @property
    def trash(self) -> Path:
        """Holds the files of ended user servers until they are deleted."""
        return self.folder.with_name("boxes-ended")

    @property
    def table(self) -> str:
        """The nftables table."""
        return f"labhub_{self.id}"

    @property
    def interfaces(self) -> str:
        """What the host's ends of the user servers' links begin with (names have 15 bytes)."""
        return f"lh{self.id}-"

    @property
    def namespaces(self) -> str:
        """What the network namespaces begin with."""
        return f"labhub-{self.id}-"

    @property
    def cgroup(self) -> str:
        """The parent of the user servers' cgroups."""
        return f"labhub-{self.id}"


def sandbox_key(uid: int, server_name: str) -> str:
    """Name one user server by numbers alone.

    Each *named* server has a sandbox of its own: two of them may then use the same port, each
    has its profile's limits, and one that is stopped takes nothing from the other.
    """
    if not server_name:
        return str(uid)
    return f"{uid}-{hashlib.sha256(server_name.encode()).hexdigest()[:8]}"
