"""What the spawners of all targets share: one choice, one environment, one way to fail."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader
from jupyterhub import orm
from jupyterhub.spawner import Spawner
from jupyterhub.utils import make_ssl_context
from sqlalchemy.orm import object_session
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Float, Instance, default

from hub.labfile.schema import Profile, Settings
from hub.spawners import profiles
from hub.spawners.endings import Endings
from hub.spawners.startup import StartError, Startup, ended
from hub.state import messages
from hub.state.paths import REPOSITORY, Paths

_TEMPLATES = Environment(
    loader=FileSystemLoader(REPOSITORY / "hub" / "templates"), autoescape=True, trim_blocks=True
)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class LabSpawner(Endings, Spawner):
    """A mixin in front of a target's spawner: ``class LocalSpawner(LabSpawner, ...)``.

    A target prepares its server in `launch` and leaves `start` alone: `start` waits until
    the server answers, notices at once when it dies, and turns every failure into a reason
    with the log's tail. JupyterHub by itself waits for a dead server until the time-out, and
    answers 500 (``InvalidStateError``) where it looks for the reason before there is one.
    """

    settings = Instance(Settings, config=True, help="The lab file.")
    paths = Instance(Paths, config=True, help="Where the portal keeps its state.")
    check_interval = Float(
        0.5, config=True, help="Seconds between two looks whether a starting server still lives."
    )

    api_token: str
    profile: Profile | None = None
    partition: str = ""
    services_url: str = ""  # where the server reaches the lab's apps, through the gate
    startup: Startup | None = None
    _token_id: int = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # JupyterHub stores new options before anything has judged them.
        self._accepted: dict[str, Any] = self.user_options

    # -- what the person chose --------------------------------------------------------

    def offered(self) -> tuple[Profile, ...]:
        """Return the profiles that the server's owner may use."""
        groups = [group.name for group in self.user.groups]
        return profiles.usable(self.settings, groups, bool(self.user.admin))

    def partitions(self, profile: Profile) -> tuple[str, ...]:
        """Return the partitions that a profile may run in, the default first; none by default."""
        return profiles.no_partitions(profile)

    async def places(
        self,
        offered: tuple[Profile, ...],  # noqa: ARG002 - there are none by default
        selected: Profile | None,  # noqa: ARG002
        last: object,  # noqa: ARG002
    ) -> Any:
        """Describe the partitions for the spawn page; None on targets that have none.

        Parameters
        ----------
        offered : tuple of Profile
            What the server's owner may use.
        selected : Profile or None
            What is chosen before they choose.
        last : object
            The partition of the last start, if any; not trusted.

        Returns
        -------
        hub.spawners.partitions.Places or None
        """
        return None

    @default("options_form")
    def _options_form(self) -> Any:
        return _render_form

    @default("options_from_form")
    def _options_from_form(self) -> Any:
        return self._read_form

    def _read_form(self, fields: dict[str, list[Any]]) -> dict[str, str]:
        # The token proves the page; it is no option. In a query it would be a mistake.
        return self._read({k: v for k, v in fields.items() if k != "_xsrf"})

    def options_from_query(self, fields: dict[str, list[Any]]) -> dict[str, str]:
        """Read ``/hub/spawn?profile=NAME``."""
        return self._read(fields)

    def _read(self, fields: dict[str, list[Any]]) -> dict[str, str]:
        try:
            options = profiles.from_form(fields)
            chosen = profiles.choose(options, self.settings, self.offered(), self.partitions)
        except profiles.OptionsError as error:
            raise StartError(str(error), status_code=error.status, reason="options") from None
        return chosen.options

    @default("apply_user_options")
    def _apply_user_options(self) -> Any:
        return LabSpawner.apply

    def apply(self, options: Any) -> None:
        """Set `profile` and `partition` from the options, whichever way they came, before `start`.

        Raises
        ------
        StartError
            400 or 403: they are refused; what was stored before them is kept. 503: maintenance.
        """
        self.profile, self.partition = None, ""
        self.startup = Startup(self.log_file)
        if maintenance := messages.refusal(self.paths, admin=bool(self.user.admin)):
            self.user_options = self.orm_spawner.user_options = self._accepted
            raise StartError(maintenance, status_code=503, reason="maintenance")
        try:
            limits = (self.settings, self.offered(), self.partitions)
            if options == self._accepted:
                choice, note = profiles.choose_again(options, *limits)
            else:
                choice, note = profiles.choose(options, *limits), ""
        except profiles.OptionsError as error:
            self.user_options = self.orm_spawner.user_options = self._accepted
            raise StartError(str(error), status_code=error.status, reason="options") from None
        if note:
            self.say(note)
        profile = choice.profile
        self._accepted = choice.options
        self.user_options = self.orm_spawner.user_options = self._accepted
        self.profile, self.partition = profile, choice.partition
        self.cpu_limit = profile.cpu
        self.mem_limit = profile.memory
        self.cmd = self.server_command(profile)

    # -- what the server gets ---------------------------------------------------------

    def server_command(self, profile: Profile) -> list[str]:
        """Return the command that starts the user's server.

        Raises
        ------
        StartError
            The profile's environment is not installed.
        """
        command = self.paths.envs / profile.environment / "bin" / "jupyterhub-singleuser"
        if not command.is_file():
            self.log.error("Profile %s needs %s, which is not there", profile.name, command)
            raise StartError(
                f"The environment {profile.environment!r} of the profile {profile.title!r} is not"
                " installed on this machine. An administrator can install it with 'labhub up'.",
                status_code=503,
                reason="environment",
            )
        return [str(command)]

    @property
    def environments(self) -> Path:
        """Where the server finds the environments; a cluster has them elsewhere."""
        return self.paths.envs

    @property
    def log_file(self) -> Path:
        """The log of this server; its tail is shown to its owner."""
        return self.paths.server_log(self.user.name, self.name)

    def get_env(self) -> dict[str, str]:
        """Return the server's environment variables: JupyterHub's, then the portal's."""
        env: dict[str, str] = super().get_env()
        idle = self.settings.culling.idle
        env["LABHUB_ENVS"] = str(self.environments)
        env["LABHUB_LAB_NAME"] = self.settings.lab.name
        env["LABHUB_CULL_IDLE_SECONDS"] = str(int(idle.total_seconds()) if idle else 0)
        env |= self.settings.job_variables(self.user.name)
        shared = self.settings.folders_for([group.name for group in self.user.groups])
        if shared:
            env["LABHUB_SHARED_FOLDERS"] = json.dumps([str(folder.path) for folder in shared])
        if self.services_url:
            env["LABHUB_SERVICES_URL"] = self.services_url
        if self.profile:
            environment = self.environments / self.profile.environment
            env["LABHUB_TUTORIALS"] = str(environment / "share" / "labhub" / "tutorials")
            env["LABHUB_PROFILE"] = self.profile.name
            env["LABHUB_MEMORY_BYTES"] = str(self.profile.memory)
            # Libraries count the machine's cores, not those that the profile has.
            threads = str(max(1, math.ceil(self.profile.cpu)))
            env |= dict.fromkeys(THREADS, threads)
        return env

    @property
    def ends_at(self) -> float | None:
        """When the server is ended whatever it does, in seconds since 1970; None: never so."""
        return None

    @property
    def remark(self) -> str:
        """What its owner should know of the running server; mostly nothing."""
        return ""

    # -- its token --------------------------------------------------------------------
    # JupyterHub forgets a server's token before it has revoked it when the server died by
    # itself, and does not know it after a restart: it would stay valid for ever.

    def get_state(self) -> dict[str, Any]:
        """Return what a new hub needs to know of the server."""
        state: dict[str, Any] = super().get_state()
        if self.api_token and not self._token_id:
            token = orm.APIToken.find(object_session(self.orm_spawner), self.api_token)
            self._token_id = token.id if token else 0
        if self._token_id:
            state["token_id"] = self._token_id
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a server that an earlier hub has started."""
        super().load_state(state)
        self._token_id = state.get("token_id", 0)
        chosen = self.user_options or {}
        names = {profile.name: profile for profile in self.settings.profiles}
        self.profile = names.get(str(chosen.get(profiles.OPTION)))
        self.partition = str(chosen.get(profiles.PARTITION, ""))

    def clear_state(self) -> None:
        """Forget the server, but for the token that is still to be revoked."""
        token = self.api_token
        super().clear_state()
        self.api_token = token

    def run_post_stop_hook(self) -> Any:
        """Revoke the server's token, then do what is configured."""
        self._revoke_token()
        return super().run_post_stop_hook()

    def _revoke_token(self) -> None:
        db = object_session(self.orm_spawner) if self._token_id else None
        if db is not None:
            token = db.get(orm.APIToken, self._token_id)
            if token is not None and token.user_id == self.orm_spawner.user_id:
                db.delete(token)
                db.commit()
        self._token_id = 0
        self.api_token = ""

    # -- starting ---------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Begin the next phase of the start; the pending page shows it."""
        self.log.info("%s: %s", self._log_name, text)
        if self.startup:
            self.startup.say(text)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the phases and the log's tail to JupyterHub's pending page."""
        if self.startup:
            async for event in self.startup.events():
                yield event

    async def launch(self) -> Any:
        """Start the server and return its address, as ``Spawner.start`` does.

        A target does its preparations here, then ``return await super().launch()``. What it
        raises is shown to the server's owner: let the text name cause and next step.
        """
        return await super().start()

    async def start(self) -> Any:
        """Start the server and wait until it answers.

        Raises
        ------
        StartError
            With the reason and the tail of the server's log.
        """
        self.ended = None
        self.say("Starting the server")
        limit = asyncio.timeout(max(1.0, self.start_timeout - 1.0))
        try:
            async with limit:
                where = await self.launch()
                self.say("Waiting for the server to answer")
                await self._wait_until_it_answers(where)
        except StartError as error:
            raise self._start_error(error.message, error.status_code, error.reason) from error
        except TimeoutError as error:
            if not limit.expired():
                raise self._start_error("Something took too long") from error
            raise self._start_error(
                f"The server did not answer within {self.start_timeout} seconds.", reason="timeout"
            ) from error
        except Exception as error:
            self.log.exception("%s could not be started", self._log_name)
            raise self._start_error(f"The server could not be started: {error}") from error
        self.say("The server is ready")
        return where

    async def stop(self, now: bool = False) -> None:
        """Stop the server."""
        await super().stop(now)

    def ending(self, status: int) -> str:
        """Say in words how the server ended; a target may know more than the status."""
        return ended(status)

    def _start_error(
        self, message: str, status_code: int = 500, reason: str = "start"
    ) -> StartError:
        log = self.startup.tail() if self.startup else ""
        return StartError(message, log=log, status_code=status_code, reason=reason)

    async def _wait_until_it_answers(self, where: Any) -> None:
        if isinstance(where, str):
            parts = urlsplit(where)
            host, port = parts.hostname or "", parts.port or 80
        else:
            host, port = str(where[0]), int(where[1])
        address = f"[{host}]" if ":" in host else host
        tls = self._certificate()
        url = f"{'https' if tls else 'http'}://{address}:{port}{self.server.base_url}api"
        loop = asyncio.get_running_loop()
        pause, look = 0.05, loop.time()
        while not await _answers(host, port, url, tls):
            if loop.time() >= look:
                status = await self.poll()
                if status is not None:
                    raise StartError(
                        f"The server did not start: {self.ending(status)}.", reason="exited"
                    )
                look = loop.time() + self.check_interval
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 0.5)

    def _certificate(self) -> ssl.SSLContext | None:
        """Return how the hub asks a server by internal SSL; None where it is not used."""
        if not self.internal_ssl:
            return None
        hub = self.user.settings
        tls: ssl.SSLContext = make_ssl_context(
            hub["internal_ssl_key"], hub["internal_ssl_cert"], cafile=hub["internal_ssl_ca"]
        )
        return tls


async def _render_form(spawner: LabSpawner) -> str:
    offered = spawner.offered()
    last = spawner.orm_spawner.user_options or {}
    selected = (
        profiles.preferred(spawner.settings, offered, last.get(profiles.OPTION))
        if offered
        else None
    )
    places = await spawner.places(offered, selected, last.get(profiles.PARTITION))
    if places is not None:
        selected = places.profile
    if len(offered) == 1 and _asks_for_nothing(spawner.handler) and (not places or places.settled):
        return ""  # nothing to choose: JupyterHub starts the server at once
    return _TEMPLATES.get_template("profiles.html").render(
        profiles=profiles.cards(offered, selected),
        places=places,
        contact=spawner.settings.lab.contact,
        server_name=spawner.name,
    )


def _asks_for_nothing(handler: Any) -> bool:
    # With options in the query an empty form would start the server in spite of an error.
    request = getattr(handler, "request", None)
    return (
        request is not None
        and request.method == "GET"
        and set(request.arguments) <= {"next", "display_name"}
    )


async def _answers(host: str, port: int, url: str, tls: ssl.SSLContext | None) -> bool:
    """Whether a server answers HTTP: first a bare connection, which costs next to nothing."""
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
        await AsyncHTTPClient().fetch(
            url, follow_redirects=False, request_timeout=10, ssl_options=tls
        )
    except HTTPClientError as error:
        return error.code < 500
    except OSError:  # a TimeoutError is one
        return False
    except ValueError:  # Tornado's start_tls, where the other end hung up just before
        return False
    return True
