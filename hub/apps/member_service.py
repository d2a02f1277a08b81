"""A member's app as the portal runs it: what a ``service.yaml`` says of other apps."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from hub.apps.declaration import Service
from hub.apps.member_records import MemberApp
from hub.labfile.webapps import WebApps

TIMEOUT = 80  # seconds that an app may take to start; a notebook waits for 90
PICTURE = "thumbnail.png"  # of its card, where its folder has one
KEPT = "keep"  # of an app's data: what a backup has


def trial(limits: WebApps) -> Service:
    """Return what any member's app would be run as, to ask whether this portal can."""
    return _service(limits, "shiny", title="app")


def service(record: MemberApp, limits: WebApps, folder: Path) -> Service:
    """Return how an app is run; nothing in it is the member's to say but texts and groups.

    Parameters
    ----------
    record : Record
        The app.
    limits : WebApps
        The lab file's.
    folder : Path
        The files of the version that runs.
    """
    # Who opens it should know whose program they trust.
    by = f"By {record.owner}." if record.owner else ""
    return _service(
        limits,
        record.shown.kind,
        title=record.title,
        description=f"{record.description} {by}".strip(),
        thumbnail=PICTURE if (folder / PICTURE).is_file() else None,
        groups=record.groups,
    )


def _service(limits: WebApps, kind: str, **texts: Any) -> Service:
    return Service(
        **texts,
        command=("python", "-m", "services.member_apps", kind),
        environment="hub",
        # Shiny knows no prefix; Dash is told its own.
        strip_prefix=kind == "shiny",
        start_timeout=timedelta(seconds=TIMEOUT),
        idle=limits.idle,
        cpu=limits.cpu,
        memory=limits.memory,
        processes=limits.processes,
        backup=(KEPT,),
        user_written=True,
    )
