"""The administrators' page of all servers' jobs."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from hub.slurm import poller as pollers
from hub.slurm.listing import server_jobs

PATH = "jobs"


class JobsHandler(BaseHandler):  # type: ignore[misc]
    """``/hub/jobs``: what ``labhub slurm list`` prints; asks SLURM nothing of its own."""

    @web.authenticated
    @needs_scope("admin-ui")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show the page."""
        servers = {}
        for spawner in self.db.query(orm.Spawner):
            job = (spawner.state or {}).get("job_id")
            if job:
                servers[spawner.user.name, spawner.name] = str(job)
        poller = pollers.shared()
        rows = {**poller.ended, **poller.jobs}
        page = await self.render_template(
            "jobs.html",
            jobs=server_jobs(servers, rows),
            trouble=poller.failing,
            page=PATH,
        )
        self.finish(page)


def handlers() -> list[Any]:
    """Return the page of a portal on SLURM, for ``JupyterHub.extra_handlers``."""
    return [(rf"/{PATH}", JobsHandler)]
