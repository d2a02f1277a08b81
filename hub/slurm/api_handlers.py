"""The hub's API handlers for user servers on SLURM.

One takes a starting server's port, in place of batchspawner's own, which sets any attribute of
the spawner that the request names, among them the command that is run as root. This one takes
an integer port, once, from the server that is just being started, and nothing else. The other
tells a server when its job ends: an operator may have given it more time.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub.apihandlers import APIHandler, default_handlers
from tornado import web

PATH = "/api/batchspawner"
TIME_PATH = "/api/labhub/time-limit"
_BYTES = 256


class ServerHandler(APIHandler):
    """Requests of servers alone, by their own tokens."""

    def spawner(self) -> Any:
        """Return the spawner whose server has this request's token.

        Raises
        ------
        tornado.web.HTTPError
            403: there is none.
        """
        text = self.get_auth_token()
        token = self.get_token() if text else None
        user = self.current_user
        if token is not None and hasattr(user, "spawners"):
            for spawner in list(user.spawners.values()):
                if hasattr(spawner, "has_token") and spawner.has_token(text, token.id):
                    return spawner
        raise web.HTTPError(403, "only a server itself may ask this, by its own token")


class PortHandler(ServerHandler):
    """``POST {"port": 25001}`` with the server's own token."""

    @web.authenticated
    async def post(self) -> None:
        """Take the port of the server that the token belongs to."""
        port = self._port()
        spawner = self.spawner()
        if port not in spawner.settings.slurm.port_range:
            raise web.HTTPError(400, "the port is not in slurm.ports")
        if not spawner.take_port(port):
            raise web.HTTPError(409, "this server has named its port already")
        self.set_status(201)
        self.finish(json.dumps({"message": "ok"}))

    def _port(self) -> int:
        if len(self.request.body) > _BYTES:
            raise web.HTTPError(413, "only a port is accepted")
        try:
            body = json.loads(self.request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict) or set(body) != {"port"} or type(body["port"]) is not int:
            raise web.HTTPError(400, 'only {"port": number} is accepted')
        return int(body["port"])


class TimeHandler(ServerHandler):
    """``GET`` with the server's own token: ``{"ends": 1767225600.0}``."""

    async def get(self) -> None:
        """Say when the server's job ends, in seconds since 1970; null: SLURM has not said."""
        job = self.spawner().job
        self.finish(json.dumps({"ends": job.end if job else None}))


def install() -> None:
    """Put them in; batchspawner's handler must not stay beside them."""
    import batchspawner.api  # noqa: F401 - it registers its own when it is imported

    kept = [entry for entry in default_handlers if entry[0] not in (PATH, TIME_PATH)]
    default_handlers[:] = [*kept, (PATH, PortHandler), (TIME_PATH, TimeHandler)]
