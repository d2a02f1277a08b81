"""What the home page shows of a person's servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

from hub import targets
from hub.labfile.schema import Settings
from hub.portal.cards import Card, cards, tutorials
from hub.sandbox.home_use import HomeUse
from hub.spawners.endings import Ending
from hub.state.paths import REPOSITORY, Paths
from labkit.base.units import format_size


@dataclass(frozen=True)
class Server:
    """One server of a person, running or not.

    Attributes
    ----------
    name : str
        Empty for the person's first server.
    state : str
        ``running``, ``starting``, ``stopping``, ``failed`` or ``stopped``.
    profile : str
        Title of the profile it has, or had; empty before its first start.
    reason : str
        Why the last start failed.
    remark : str
        What is unusual about a server that runs: it is suspended.
    ended : Ending or None
        How it ended by itself, where it does not run since.
    started, last_activity, stops : datetime or None
        Aware times; ``stops`` is when it would be stopped if nobody used it from now on.
    stops_because : str
        ``idle``, ``age`` or ``limit`` (the cluster's time limit).
    url : str
        The server itself, on its own origin where it has one.
    path : str
        ``user`` or ``user/server``: what follows ``spawn/`` and ``spawn-pending/``.
    """

    name: str
    state: str
    profile: str
    reason: str
    remark: str
    ended: Ending | None
    started: datetime | None
    last_activity: datetime | None
    stops: datetime | None
    stops_because: str
    url: str
    path: str


class Home:
    """What pages may ask about the person they are for; computed when they ask.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    user : jupyterhub.user.User
        The person.
    homes : HomeUse, optional
        Measures homes, where they are on this machine.
    """

    def __init__(
        self, settings: Settings, paths: Paths, user: Any, homes: HomeUse | None = None
    ) -> None:
        self._homes = homes
        self._settings = settings
        self._paths = paths
        self._user = user
        self.named_limit = settings.named_servers

    @cached_property
    def servers(self) -> list[Server]:
        """All servers of the person, the unnamed one first."""
        return list(self._servers())

    @property
    def named(self) -> int:
        """How many named servers the person has."""
        return sum(bool(server.name) for server in self.servers)

    @property
    def is_new(self) -> bool:
        """Whether the person has never started a server."""
        return all(s.started is None and s.state == "stopped" for s in self.servers)

    @property
    def home_use(self) -> str:
        """What the person's home holds, such as ``12 GB``; empty where that is not known."""
        text = self._homes.text(self._user.name) if self._homes else ""
        size = self._settings.storage.home_quota
        return f"{text} of {format_size(size)}" if text and size else text

    @property
    def scratch_days(self) -> int:
        """Days after which unused files go from the scratch folder; 0 where there is none."""
        scratch = self._settings.storage.scratch
        return scratch.days if scratch else 0

    @property
    def start_takes(self) -> str:
        """How long a start takes, for somebody who has never seen one."""
        return targets.of(self._settings, self._paths).start_takes

    @cached_property
    def apps(self) -> list[Card]:
        """The apps that the person may open."""
        groups = [group.name for group in self._user.groups]
        return cards(self._settings, self._paths, groups, bool(self._user.admin))

    @property
    def help(self) -> str:
        """Address of Labhub's help in the app of documents; empty for whom may not open that."""
        return next((f"{card.url}labhub/" for card in self.apps if card.service == "docs"), "")

    @cached_property
    def tutorials(self) -> list[Card]:
        """The tutorial notebooks."""
        return tutorials(REPOSITORY / "notebooks")

    def _servers(self) -> Iterator[Server]:
        known = self._user.orm_user.orm_spawners
        for name in ["", *sorted(name for name in known if name)]:
            orm = known.get(name)
            yield self._server(name, orm, self._user.spawners[name] if orm else None)

    def _server(self, name: str, orm: Any, spawner: Any) -> Server:
        options = (orm.user_options if orm else None) or {}
        titles = {p.name: p.title for p in self._settings.profiles}
        state, reason = _state(spawner)
        started = _aware(orm.started) if orm else None
        last_activity = _aware(orm.last_activity) if orm else None
        stops, because = None, ""
        if state == "running":
            stops, because = self._stops(started, last_activity, spawner.ends_at)
        place = quote(self._user.name, safe="") + (f"/{name}" if name else "")
        return Server(
            name=name,
            state=state,
            profile=titles.get(str(options.get("profile")), ""),
            reason=reason,
            remark=spawner.remark if state == "running" else "",
            ended=spawner.ended if spawner is not None and state == "stopped" else None,
            started=started,
            last_activity=last_activity,
            stops=stops,
            stops_because=because,
            url=self._user.server_url(name),
            path=place,
        )

    def _stops(
        self, started: datetime | None, last_activity: datetime | None, ends: float | None
    ) -> tuple[datetime | None, str]:
        culling = self._settings.culling
        used = last_activity or started
        times = []
        if culling.idle and used:
            times.append((used + culling.idle, "idle"))
        if culling.max_age and started:
            times.append((started + culling.max_age, "age"))
        if ends:
            times.append((datetime.fromtimestamp(ends, UTC), "limit"))
        return min(times) if times else (None, "")


def _state(spawner: Any) -> tuple[str, str]:
    if spawner is None:
        return "stopped", ""
    if spawner.pending:
        return ("stopping" if spawner.pending == "stop" else "starting"), ""
    if spawner.ready:
        return "running", ""
    error = spawner._spawn_future.exception() if spawner._failed else None
    if error is not None:
        return "failed", str(getattr(error, "message", "") or error)
    return "stopped", ""


def _aware(moment: datetime | None) -> datetime | None:
    """JupyterHub keeps naive times in UTC."""
    return moment.replace(tzinfo=UTC) if moment else None
