"""What a target answers: where user servers run, and all that differs with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from traitlets.config import Config

from hub.apps.runtime import AppRuntime
from hub.apps.supervised import SupervisedApps
from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.problems import Problem

if TYPE_CHECKING:
    from hub.spawners.base import LabSpawner


@dataclass(frozen=True)
class Finding:
    """What one look of ``labhub doctor`` found.

    Attributes
    ----------
    topic : str
        What was looked at.
    detail : str
        What was seen.
    problems : tuple of Problem
        What is wrong; empty where all is well.
    """

    topic: str
    detail: str
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong but for warnings."""
        return all(problem.warning for problem in self.problems)


@dataclass(frozen=True)
class Target(ABC):
    """One portal's target.

    A target that is like one machine in something leaves that method alone.

    Attributes
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """

    settings: Settings
    paths: Paths

    # -- user servers -----------------------------------------------------------------

    @property
    @abstractmethod
    def spawner_class(self) -> type[LabSpawner]:
        """How a user server is started; it makes the form and says what can be chosen in it."""

    @property
    @abstractmethod
    def on_this_machine(self) -> bool:
        """Whether user servers run on the hub's own machine, with the programs of that one."""

    @property
    def as_one_account(self) -> bool:
        """Whether without root all user servers would run as the portal's own account."""
        return self.on_this_machine

    def configure(self, c: Config) -> None:  # noqa: B027 - nothing more on most
        """Set what only this target sets in JupyterHub, after all else.

        Parameters
        ----------
        c : Config
            JupyterHub's configuration object.

        Raises
        ------
        ProblemsError
            It may not start as things are.
        """

    def handlers(self) -> list[Any]:
        """Return pages of its own, for ``JupyterHub.extra_handlers``."""
        return []

    def template_vars(self) -> dict[str, Any]:
        """Return what the hub's pages know of it, for ``JupyterHub.template_vars``."""
        return {}

    @property
    def start_takes(self) -> str:
        """How long a server's start takes, for somebody who has never seen one."""
        return "some seconds, or some minutes where a machine has to be switched on for it"

    @property
    def can_end_servers(self) -> bool:
        """Whether `end_servers` ends user servers without the hub's help."""
        return False

    def end_servers(self) -> None:  # noqa: B027 - nothing is left on most
        """End user servers that are left, and remove what was made for them on this machine."""

    # -- programs ---------------------------------------------------------------------

    @property
    def addresses(self) -> PortalAddresses:
        """Where hub, proxy's API and gate listen, and what others are told."""
        return PortalAddresses.of_one_host(self.settings)

    def prepare(self) -> None:  # noqa: B027 - nothing is needed on most
        """Make what proxy, gate and hub need, before each of them starts."""

    def proxy_words(self) -> list[str]:
        """Return more arguments of configurable-http-proxy; they hold no secret."""
        return []

    @property
    def app_runtime(self) -> AppRuntime:
        """What runs the apps behind the login."""
        return SupervisedApps(self.settings, self.paths, self.addresses)

    # -- environments -----------------------------------------------------------------

    def brings_environment(self, name: str) -> bool:  # noqa: ARG002 - none by default
        """Return whether user servers find an environment that ``labhub up`` does not make.

        Parameters
        ----------
        name : str
            As profiles name it.
        """
        return False

    # -- what is checked and rendered -------------------------------------------------

    def problems(self) -> list[Problem]:
        """Return what keeps user servers from running, for ``labhub check``; changes nothing."""
        return []

    def findings(self) -> list[Finding]:
        """Look after user servers and what they run on, for ``labhub doctor``."""
        return []

    def node_finding(self, partition: str) -> Finding:
        """Try from a machine of user servers what they need there, for ``labhub doctor --node``.

        Parameters
        ----------
        partition : str
            Whose node; empty: the first that the lab file offers.
        """
        del partition
        text = "user servers of this target have no nodes to try"
        return Finding("node", "none", (Problem("--node", text, "labhub doctor"),))

    def rendered(self) -> Mapping[str, Callable[[], str]]:
        """Return what ``labhub render`` makes of the lab file for this target, by name."""
        return {}
