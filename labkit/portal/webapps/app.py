"""What a notebook holds of members' apps: one, and the list of all that I may see."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.base.problems import Problem, refuse
from labkit.portal.publishing.client import same_version
from labkit.portal.publishing.publication import Publication, Publications
from labkit.portal.webapps import git
from labkit.portal.webapps.client import Client, WebAppError
from labkit.portal.webapps.package import Package, collect
from labkit.portal.webapps.rules import RULES, SOURCE

Say = Callable[[str], None]
_TAIL = 15  # lines of the log that an error shows


class WebApp(Publication[Client]):
    """A member's app.

    Attributes
    ----------
    name, title, description, owner : str
        Which one, and whose.
    groups : list of str
        Who may open it, besides administrators.
    kind : str
        ``shiny`` or ``dash``.
    url : str
        Where it is.
    version : int
        Number of the version that runs.
    state : str
        ``running``, ``starting``, ``stopped`` or ``failed``, when this was asked.
    """

    noun = "app"
    link = "Open the app"
    fields = ("kind", "state")
    mark = "runs"
    columns = ("kind", "files", "source")

    def logs(self, lines: int = 100) -> str:
        """Return the end of its log: what it printed, and why it ended."""
        return self._client.log(self.name, lines)

    def start(self) -> WebApp:
        """Start it, where it is stopped, and wait until it is ready or has ended: see `state`."""
        self._state = self._client.ask("POST", f"/{self.name}/start", {})
        return self

    def restart(self) -> WebApp:
        """End it and start it anew."""
        self._state = self._client.ask("POST", f"/{self.name}/restart", {})
        return self

    def update(
        self,
        *,
        title: str | None = None,
        description: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> WebApp:
        """Change its card and who may open it; the files stay.

        Raises
        ------
        WebAppError
            A value is not allowed, or it is not yours to change.
        """
        return self._update(groups, title=title, description=description)

    def _version_row(self, version: Mapping[str, Any]) -> Sequence[object]:
        return version["kind"], version["files"], version["source"]

    def _facts(self) -> list[tuple[str, str]]:
        seen = "nobody: it is unpublished" if self.hidden else ", ".join(self.groups)
        kind = {"shiny": "Shiny", "dash": "Dash"}[self.kind]
        return [
            ("App", f"{kind}, version {self.version}, {self.state}"),
            ("Owner", self.owner or "the lab"),
            ("For", seen),
        ]


class WebApps(Publications[WebApp]):
    """All members' apps that I may see: ``published_apps()["plates"]`` is one of them.

    Attributes
    ----------
    user : str
        Who I am, for the portal.
    groups : list of str
        The groups that I am in, and may publish for.
    may_publish : bool
        Whether the lab lets me publish.
    """

    kind = "app that you may see"
    nothing = "No app is published for you yet."

    key = "apps"
    columns = ("title", "kind", "owner", "version", "for", "state", "url")

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.may_publish = bool(self._answer["may_publish"])

    def _item(self, client: Client, state: Mapping[str, Any]) -> WebApp:
        return WebApp(client, state)

    def _row(self, one: WebApp) -> Sequence[object]:
        groups = ", ".join(one.groups)
        return one.title, one.kind, one.owner, one.version, groups, one.state, one.url


def publish(
    source: str | Path,
    name: str,
    *,
    groups: Sequence[str] | None,
    title: str | None,
    description: str | None,
    folder: str,
    ref: str,
    say: Say,
) -> WebApp:
    """Do what ``labkit.publish_app`` says; see there for the parameters and errors."""
    texts = {"title": title, "description": description}
    problems = RULES.check_request(name, {**texts, "groups": groups})
    with tempfile.TemporaryDirectory(prefix="labkit-app-") as scratch:
        place, made_from = Path(str(source)), Path(str(source)).expanduser().resolve().name
        if git.is_address(source):
            refuse(problems)
            say(f"Fetching {git.shown(str(source))} …")
            place = Path(scratch, "repository")
            place.mkdir()
            commit = git.fetch(str(source), ref, place)
            made_from = f"{git.shown(str(source))}@{commit}"
            place = _below(place, folder)
        elif folder:
            problems.append(Problem("folder", "it is for repositories.", "Name the folder itself."))
        say("Looking at the app …")
        client = Client.from_environment()
        me = client.list_all()
        package = collect(place, int(me["size"]))
        problems += package.problems
        if groups is not None and not isinstance(groups, str):
            kept = [group for one in me["apps"] if one["name"] == name for group in one["groups"]]
            problems += RULES.check_groups(groups, me["groups"], admin=me["admin"], kept=kept)
        refuse(problems)
        if package.left_out:
            some = ", ".join(package.left_out[:5]) + (" …" if len(package.left_out) > 5 else "")
            say(f"Left out: {some}")
        said = {key: text for key, text in texts.items() if text is not None}
        fields: dict[str, Any] = {**said, "source": made_from[: SOURCE.most]}
        if groups is not None:
            fields["groups"] = list(groups)
        answer = _send(client, name, package, fields, Path(scratch), say)
    say("Starting it …")
    app = WebApp(client, answer).start()
    if app.state != "running":
        raise WebAppError(_does_not_start(app))
    say(f"Published: {app.url}")
    return app


def _below(place: Path, folder: str) -> Path:
    """Return a folder of a repository; links do not lead out of it."""
    inside = (place / folder).resolve()
    if not inside.is_relative_to(place.resolve()) or not inside.is_dir():
        refuse([Problem("folder", f"the repository has no folder {folder!r}.")])
    return inside


def _send(
    client: Client, name: str, package: Package, fields: dict[str, Any], scratch: Path, say: Say
) -> dict[str, Any]:
    to_come = {"size": package.size, "files": len(package.files), "kind": package.kind}
    client.ask("POST", f"/{name}/check", {**fields, **to_come})
    archive = scratch / "archive"
    with archive.open("wb") as stream:
        package.write(stream)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    same = same_version(client.get_if_any(name), digest)
    if same is not None:
        say(f"These files are version {same} already: nothing is sent.")
        changes = {key: value for key, value in fields.items() if key != "source"}
        return client.change(name, {**changes, "current": same, "hidden": False})
    body = scratch / "body"
    with body.open("wb") as stream:
        stream.write(json.dumps(fields).encode() + b"\n")
        stream.write(archive.read_bytes())
    size = body.stat().st_size

    def tell(sent: int) -> None:
        say(f"Sending it ({len(package.files)} file(s)): {100 * sent // size} %")

    sent: dict[str, Any] = client.send(f"/{name}/package", body, tell)
    return sent


def _does_not_start(app: WebApp) -> str:
    try:
        lines = app.logs(_TAIL)
    except WebAppError:
        lines = ""
    log = "\n".join(f"    {line}" for line in lines.splitlines())
    return (
        f"'{app.name}' was published and does not start. Its log ends with:\n{log}\n"
        "Next step: correct and publish it again; labkit.published_apps() has the version before."
    )
