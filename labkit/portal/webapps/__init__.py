"""Publish a Shiny or Dash app of one's own for groups of the lab: ``labkit.publish_app``.

``rules`` says what is allowed (the portal asks it again), ``package`` collects the files, ``git``
fetches a repository, ``client`` talks to the portal, ``app`` is what a notebook holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from labkit.portal.webapps.app import WebApp, WebApps

__all__ = ["app_logs", "publish_app", "published_apps"]


def publish_app(
    source: str | Path,
    name: str,
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    description: str | None = None,
    folder: str = "",
    ref: str = "HEAD",
    progress: Callable[[str], None] | None = None,
) -> WebApp:
    """Publish a Shiny or Dash app of your own, for the groups you name.

    It becomes ``/services/<name>/``, on an origin of its own, behind the portal's login. It runs
    in a sandbox with an account of its own: it sees the files that come with it and nothing of
    yours. Published again under the same name it becomes a new version; the versions before are
    kept, and ``roll_back`` returns to one.

    Parameters
    ----------
    source : str or pathlib.Path
        ``app.R`` or ``app.py`` (that file alone), a folder with one of them, or a git repository:
        ``https://...``, ``ssh://...``, ``git@host:...`` or ``file://...``.
    name : str
        Name in the address: up to 22 small letters, digits and hyphens, a letter first.
    groups : sequence of str, optional
        Who may open it: groups that you are in. Needed for a new app; None leaves those of a
        published one.
    title, description : str, optional
        For its card on the home page; default is what it was, else the name.
    folder : str, optional
        Of a repository: the app's folder in it.
    ref : str, default "HEAD"
        Of a repository: branch, tag or commit.
    progress : callable, optional
        Called with one line of text per step; default shows them in the notebook.

    Returns
    -------
    WebApp
        With ``url``, ``logs()``, ``restart()``, ``versions()``, ``roll_back()``, ``update()`` and
        ``unpublish()``.

    Raises
    ------
    RefusedError
        The name, the groups or the files are not allowed; names all that is wrong. Nothing was
        sent.
    WebAppError
        The portal refused it or cannot be reached; or the app was published and does not start,
        with the end of its log.

    Examples
    --------
    >>> labkit.publish_app("plates/", "plates", groups=["screening"])  # doctest: +SKIP
    """
    from labkit.portal.webapps.app import publish
    from labkit.viewers.progress import shown

    with shown(progress) as say:
        return publish(
            source,
            name,
            groups=groups,
            title=title,
            description=description,
            folder=folder,
            ref=ref,
            say=say,
        )


def published_apps() -> WebApps:
    """Return the members' apps that you may see; ``published_apps()["plates"]`` is one of them.

    Raises
    ------
    WebAppError
        The portal cannot be reached.
    """
    from labkit.portal.webapps.app import WebApps
    from labkit.portal.webapps.client import Client

    return WebApps(Client.from_environment())


def app_logs(name: str, lines: int = 100) -> str:
    """Return the end of the log of an app of yours: what it printed, and why it ended.

    Parameters
    ----------
    name : str
        The app's.
    lines : int, default 100
        At most so many.

    Raises
    ------
    WebAppError
        There is no such app, or it is not yours.
    """
    from labkit.portal.webapps.client import Client

    return Client.from_environment().log(name, lines)
