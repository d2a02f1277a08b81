"""Messages to the portal's people: what every page shows, the API, and the administrators' page."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from hub.labfile.schema import Settings
from hub.state.messages import LONGEST, MessageBoard, board
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from labkit.base.units import format_duration

PATH = "messages"
# What the page offers, in seconds: no form knows in which time zone somebody sits.
SPANS = (1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 86_400, 3 * 86_400, 7 * 86_400)
DELAYS = (0, 900, 1800, 3600, 2 * 3600, 4 * 3600, 86_400)


def template_vars(paths: Paths) -> dict[str, Any]:
    """Return what pages know of the messages: ``messages``, those for whom a page is for."""
    messages = board(paths)
    return {"messages": lambda user: messages.shown(groups_of(user))}


def groups_of(user: Any) -> list[str]:
    """Return the groups of somebody; none where nobody has logged in, or a service asks."""
    return [group.name for group in getattr(user, "groups", ())]


class MessagesApi(APIHandler):  # type: ignore[misc]
    """``GET /hub/api/labhub/messages``: those for who asks; to strangers those for everybody."""

    def initialize(self, messages: MessageBoard) -> None:
        """Remember the messages."""
        self.messages = messages

    async def get(self) -> None:
        """Answer with a list of messages: ``id``, ``text``, ``until``, ``begins``."""
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(self.messages.shown(groups_of(self.current_user))))


class MessagesPage(BaseHandler):  # type: ignore[misc]
    """``/hub/messages``: administrators write messages and take them back."""

    def initialize(self, settings: Settings, messages: MessageBoard) -> None:
        """Remember the lab file and the messages."""
        self.settings_of_lab = settings
        self.messages = messages

    @web.authenticated
    @needs_scope("admin-ui")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show the page."""
        await self._show()

    @web.authenticated
    @needs_scope("admin-ui")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Show a message, or take one back."""
        identity = self.get_body_argument("remove", "")
        if identity:
            self.messages.remove(identity)
        else:
            try:
                self._add()
            except ProblemsError as error:
                self.set_status(400)
                await self._show([str(problem) for problem in error.problems])
                return
        self.redirect(f"{self.hub.base_url}{PATH}")

    def _add(self) -> None:
        now = time.time()
        span = self._choice("for", SPANS)
        delay = self._choice("begins", DELAYS)
        begins = now + (delay or 0) if self.get_body_argument("maintenance", "") else None
        known = {group.name for group in self.db.query(orm.Group)}
        groups = [name for name in self.get_body_arguments("group") if name in known]
        self.messages.add(
            self.get_body_argument("text", ""),
            self.current_user.name,
            until=(begins or now) + span if span else None,
            groups=groups,
            begins=begins,
        )

    def _choice(self, name: str, offered: tuple[int, ...]) -> int | None:
        text = self.get_body_argument(name, "")
        return int(text) if text in map(str, offered) else None

    async def _show(self, problems: list[str] | None = None) -> None:
        now = time.time()
        page = await self.render_template(
            "messages.html",
            page=PATH,
            problems=problems or [],
            text=self.get_body_argument("text", "") if problems else "",
            longest=LONGEST,
            current=sorted(self.messages.current(), key=lambda one: -one.created),
            now=now,
            moment=_moment,
            spans=[(span, format_duration(span)) for span in SPANS],
            delays=[
                (delay, f"in {format_duration(delay)}" if delay else "now") for delay in DELAYS
            ],
            groups=sorted(group.name for group in self.db.query(orm.Group)),
            servers=self._servers(),
        )
        self.finish(page)

    def _servers(self) -> list[dict[str, Any]]:
        """Return who runs what now."""
        titles = {profile.name: profile.title for profile in self.settings_of_lab.profiles}
        running = self.db.query(orm.Spawner).filter(orm.Spawner.server_id.isnot(None))
        rows = [
            {
                "user": spawner.user.name,
                "name": spawner.name,
                "profile": titles.get(str((spawner.user_options or {}).get("profile")), ""),
                "started": _aware(spawner.started),
                "last_activity": _aware(spawner.last_activity),
            }
            for spawner in running
        ]
        return sorted(rows, key=lambda row: (row["user"], row["name"]))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None


def handlers(settings: Settings, paths: Paths) -> list[Any]:
    """Return page and API, for ``JupyterHub.extra_handlers``."""
    messages = board(paths)
    return [
        (r"/api/labhub/messages", MessagesApi, {"messages": messages}),
        (rf"/{PATH}", MessagesPage, {"settings": settings, "messages": messages}),
    ]
