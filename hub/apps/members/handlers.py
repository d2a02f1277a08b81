"""What a notebook asks the running hub: publish an app, look after it, read its log.

The hub receives the files and never runs them: an app runs in its own sandbox and account.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from jupyterhub import orm
from tornado import web

from hub.apps import catalogue, install, jupyterhub_services, member_records, member_service
from hub.apps.handlers import Handler
from hub.apps.member_records import MemberApp
from hub.apps.members import package
from hub.apps.members.publish import Announcement, AppPublisher
from hub.apps.runtime import AppRuntime, AppRuntimeError
from hub.labfile.schema import Settings
from hub.sandbox.accounts import AccountError
from hub.state.paths import Paths
from labkit.base.problems import Problem
from labkit.portal import wire
from labkit.portal.webapps.rules import RULES
from services.appkit.person import Person
from services.appkit.published.statements import Change, RefusedPublishError, parse
from services.member_apps import answers

log = logging.getLogger(__name__)

_HEAD = 64 << 10  # bytes of what is said before the archive
_LOG_LINES = 5000  # of a log that are told
_UPLOAD = 3600.0  # seconds
_KNOCK = 0.2  # seconds between two looks whether an app is ready


class _Base(Handler):
    """What every handler of members' apps knows."""

    @property
    def publisher(self) -> AppPublisher:
        """The members' apps."""
        return AppPublisher(self.settings_of_lab, self.paths, self.taken())

    def person(self) -> Person:
        """Return who asks.

        Raises
        ------
        tornado.web.HTTPError
            Nobody is logged in, or it is not theirs to ask.
        """
        user = self.current_user
        if user is None or isinstance(user, orm.Service):
            raise web.HTTPError(403, "Log in first, or send a token of the portal's.")
        if jupyterhub_services.PUBLISH not in self.expanded_scopes:
            raise web.HTTPError(403, "This token may not publish apps. Restart your server.")
        groups = frozenset(group.name for group in user.groups)
        return Person(user.name, groups, user.admin is True)

    def fields(self, body: bytes) -> dict[str, Any]:
        """Return the JSON object of a body."""
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise web.HTTPError(400, "A JSON object is needed.")
        return content

    def refuse(self, problems: Iterable[Problem], status: int = 422) -> None:
        """Answer with all problems."""
        self.set_status(status)
        self.finish(wire.refusal(problems))

    def taken(self) -> frozenset[str]:
        """Return the names of the hub's services that are no apps of the portal."""
        mark = jupyterhub_services.MARK["labhub"]
        services = self.settings["app"]._service_map.items()
        return frozenset(name for name, one in services if one.info.get("labhub") != mark)

    async def own(self, name: str) -> tuple[Person, MemberApp]:
        """Return an app that is theirs who ask.

        Raises
        ------
        tornado.web.HTTPError
            There is none, or it is somebody else's.
        """
        person = self.person()
        record = await asyncio.to_thread(self.publisher.get, person, name)
        if record is None:
            raise web.HTTPError(404, f"There is no app '{name}' that you may see.")
        if not record.may_change(person):
            raise web.HTTPError(403, record.not_yours())
        return person, record

    async def take_up(self) -> None:
        """Put what is kept now into force."""
        await asyncio.to_thread(self.runtime.follow)
        await self.sync()

    async def tell(self, record: MemberApp, person: Person) -> None:
        """Answer with an app."""
        description = self.publisher.described(record, person)
        self.finish({**description, "state": await self.state(record.name)})


class Listing(_Base):
    """``/hub/api/labhub/webapps``: the apps that a person may know of."""

    async def get(self) -> None:
        """Answer with who asks, and the apps."""
        person, publisher = self.person(), self.publisher
        visible = await asyncio.to_thread(publisher.visible, person)
        self.write(
            {
                "user": person.name,
                "groups": sorted(person.groups),
                "admin": person.admin,
                "may_publish": publisher.may_publish(person),
                "size": self.settings_of_lab.webapps.size,
                "apps": [
                    {
                        **publisher.described(one, person),
                        "state": await self.state(one.name),
                    }
                    for one in sorted(visible, key=lambda app: app.name)
                ],
            }
        )


class One(_Base):
    """``/hub/api/labhub/webapps/NAME``: one app."""

    async def get(self, name: str) -> None:
        """Answer with the app."""
        person = self.person()
        record = await asyncio.to_thread(self.publisher.get, person, name)
        if record is None:
            raise web.HTTPError(404, f"There is no app '{name}' that you may see.")
        await self.tell(record, person)

    async def patch(self, name: str) -> None:
        """Change texts, groups, the version that runs, or whether it is published."""
        person, _ = await self.own(name)
        try:
            wanted = parse(Change, self.fields(self.request.body), RULES)
            changed = await asyncio.to_thread(self.publisher.change, person, name, wanted)
        except RefusedPublishError as error:
            self.refuse(error.problems)
            return
        await self.take_up()
        await self.tell(changed, person)

    async def delete(self, name: str) -> None:
        """Remove an app for good, with all its versions, its data and its log."""
        person, _ = await self.own(name)
        try:
            await asyncio.to_thread(self.publisher.remove, person, name)
        except RefusedPublishError as error:
            self.refuse(error.problems)
            return
        await self.take_up()
        try:
            await asyncio.to_thread(install.forget, name, self.paths)
        except AccountError as error:
            log.error("App %s is gone; its account is not: %s", name, error)
        # The name may be somebody else's tomorrow.
        await asyncio.to_thread(self.runtime.delete_log, name)
        self.set_status(204)


class Check(_Base):
    """``/hub/api/labhub/webapps/NAME/check``: whether it would be refused."""

    async def post(self, name: str) -> None:
        """Answer with all that is wrong, before anything is sent."""
        person = self.person()
        try:
            wanted = parse(Announcement, self.fields(self.request.body), RULES)
        except RefusedPublishError as error:
            self.refuse(error.problems)
            return
        checks = self.publisher.problems(person, name, wanted)
        problems = await asyncio.to_thread(list, checks)
        if problems:
            self.refuse(problems)
        else:
            self.write({"ok": True})


@web.stream_request_body
class Package(_Base):
    """``/hub/api/labhub/webapps/NAME/package``: the files of an app.

    The body is one line of JSON, then the archive. It goes to a file while it arrives.
    """

    _file: Path | None = None
    _stream: BinaryIO | None = None
    _complete = False

    async def prepare(self) -> None:
        """Let in who may publish, before the body is read."""
        await super().prepare()
        if self._finished:
            return
        person = self.person()
        if not self.publisher.may_publish(person):
            raise web.HTTPError(403, "You may not publish apps in this lab.")
        # Compressed it is smaller; what cannot be compressed grows by a little.
        most = self.settings_of_lab.webapps.size + (4 << 20)
        length = self.request.headers.get("Content-Length", "")
        if not length.isdecimal() or not 0 < int(length) <= most:
            raise web.HTTPError(413, "The app is too large, or its size was not said.")
        connection: Any = self.request.connection
        connection.set_max_body_size(most)
        connection.set_body_timeout(_UPLOAD)
        self._stream, self._file = await asyncio.to_thread(package.incoming, self.paths)

    async def data_received(self, chunk: bytes) -> None:
        """Keep a piece."""
        if self._stream is not None:
            await asyncio.to_thread(self._stream.write, chunk)

    async def put(self, name: str) -> None:
        """Make it the version that runs."""
        person, file = self.person(), self._file
        if file is None or self._stream is None:
            raise web.HTTPError(400, "There is no app in the request.")
        self._complete = True
        self._stream.close()
        head = await asyncio.to_thread(_split, file)
        publisher = self.publisher
        try:
            wanted = parse(Announcement, self.fields(head), RULES)
            record = await asyncio.to_thread(publisher.publish, person, name, wanted, file)
        except RefusedPublishError as error:
            self.refuse(error.problems)
            return
        await self.take_up()
        await self.tell(record, person)

    def on_finish(self) -> None:
        """Remove what was received."""
        self._clear()
        super().on_finish()

    def on_connection_close(self) -> None:
        """Remove what was received, where the rest never comes."""
        if not self._complete:
            self._clear()
        super().on_connection_close()

    def _clear(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._file is not None:
            self._file.unlink(missing_ok=True)


class Log(_Base):
    """``/hub/api/labhub/webapps/NAME/log``: what an app has said, for its owner."""

    async def get(self, name: str) -> None:
        """Answer with the end of its log."""
        await self.own(name)
        number = self.get_query_argument("lines", "100")
        lines = int(number) if number.isdecimal() and len(number) < 6 else 100
        lines = max(1, min(lines, _LOG_LINES))
        text = await asyncio.to_thread(self.runtime.log, name, lines)
        self.write({"log": text})


class Start(_Base):
    """``/hub/api/labhub/webapps/NAME/start``, ``.../restart``."""

    async def post(self, name: str, action: str) -> None:
        """Start the app and answer when it is ready, or has ended."""
        person, record = await self.own(name)
        if record.hidden:
            raise web.HTTPError(409, f"'{name}' is unpublished: publish it again first.")
        app = catalogue.member_app(record, self.settings_of_lab, self.paths)
        try:
            if action == "restart":
                await asyncio.to_thread(self.runtime.stop, name)
            await asyncio.to_thread(self.runtime.start, name)
        except AppRuntimeError as error:
            raise web.HTTPError(503, str(error)) from None
        socket = self.runtime.address(app).socket
        end = time.monotonic() + member_service.TIMEOUT
        state = "starting"
        while state == "starting" and time.monotonic() < end:
            await asyncio.sleep(_KNOCK)
            status = await asyncio.to_thread(self.runtime.status, name)
            if status.state not in ("starting", "running"):
                state = "failed"
            elif await asyncio.to_thread(answers, socket):
                state = "running"
        self.finish({**self.publisher.described(record, person), "state": state})


def _split(file: Path) -> bytes:
    """Take the first line off a file, in place, and return it."""
    with file.open("r+b") as stream:
        head = stream.readline(_HEAD)
        if not head.endswith(b"\n"):
            return b""
        place = 0
        while piece := stream.read(1 << 20):
            after = stream.tell()
            stream.seek(place)
            stream.write(piece)
            place += len(piece)
            stream.seek(after)
        stream.truncate(place)
    return head


def handlers(settings: Settings, paths: Paths, runtime: AppRuntime, gate_url: str) -> list[Any]:
    """Return the handlers, for ``JupyterHub.extra_handlers``; see `hub.apps.handlers.handlers`."""
    member_records.store(paths).tidy()
    known = {"settings": settings, "paths": paths, "runtime": runtime, "gate_url": gate_url}
    one = r"/api/labhub/webapps/([a-z0-9-]+)"
    return [
        (r"/api/labhub/webapps", Listing, known),
        (one, One, known),
        (rf"{one}/check", Check, known),
        (rf"{one}/package", Package, known),
        (rf"{one}/log", Log, known),
        (rf"{one}/(start|restart)", Start, known),
    ]
