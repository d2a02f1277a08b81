"""The hub's door for a starting server's port, in place of batchspawner's.

batchspawner's own sets any attribute of the spawner that the request names, among them the
command that is run as root. This one takes an integer port, once, from the server that is
just being started, and nothing else.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from jupyterhub.apihandlers import APIHandler, default_handlers
from tornado import web

PATH = "/api/batchspawner"
_BYTES = 256


class PortHandler(APIHandler):
    """``POST {"port": 25001}`` with the server's own token."""

    @web.authenticated
    async def post(self) -> None:
        """Take the port of the server that the token belongs to."""
        port = self._port()
        spawner = self._spawner()
        if spawner is None:
            raise web.HTTPError(403, "only a server that is being started can name its port")
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

    def _spawner(self) -> Any:
        """Return the spawner whose server has this request's token."""
        token = self.get_auth_token()
        user = self.current_user
        if not token or not hasattr(user, "spawners"):
            return None
        for spawner in list(user.spawners.values()):
            known = spawner.api_token
            if known and hmac.compare_digest(known.encode(), token.encode()):
                return spawner if hasattr(spawner, "take_port") else None
        return None


def install() -> None:
    """Put it in the place of batchspawner's handler, which must not stay beside it."""
    import batchspawner.api  # noqa: F401 - it registers its own when it is imported

    kept = [entry for entry in default_handlers if entry[0] != PATH]
    default_handlers[:] = [*kept, (PATH, PortHandler)]
