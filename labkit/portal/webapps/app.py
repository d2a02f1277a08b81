"""What a notebook holds of members' apps: one, and the list of all that I may see."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.base.problems import Problem, refuse
from labkit.portal import collection
from labkit.portal.webapps import git
from labkit.portal.webapps.client import Client, WebAppError
from labkit.portal.webapps.package import Package, collect
from labkit.portal.webapps.rules import TEXTS, check_audience, check_name, check_texts

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], None]
_TAIL = 15  # lines of the log that an error shows


class WebApp:
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

    def __init__(self, client: Client, told: Mapping[str, Any]) -> None:
        self._client = client
        self._told = dict(told)

    def __getattr__(self, name: str) -> Any:
        told = ("name", "title", "description", "owner", "groups", "kind", "url", "state", "hidden")
        if name in told:
            return self._told[name]
        raise AttributeError(f"a published app has no {name!r}")

    @property
    def version(self) -> int:
        """Number of the version that runs."""
        return int(self._told["current"])

    def refresh(self) -> WebApp:
        """Ask again how it is."""
        self._told = self._client.ask("GET", f"/{self.name}")
        return self

    def logs(self, lines: int = 100) -> str:
        """Return the end of its log: what it printed, and why it ended."""
        return self._client.log(self.name, lines)

    def start(self) -> WebApp:
        """Start it, where it is stopped, and wait until it is ready or has ended: see `state`."""
        self._told = self._client.ask("POST", f"/{self.name}/start", {})
        return self

    def restart(self) -> WebApp:
        """End it and start it anew."""
        self._told = self._client.ask("POST", f"/{self.name}/restart", {})
        return self

    def versions(self) -> pd.DataFrame:
        """Return all versions: when, who, size, and what each was made from."""
        import pandas as pd

        self.refresh()
        rows = [
            {
                "version": one["number"],
                "runs": one["number"] == self.version,
                "created": one["created"],
                "author": one["author"],
                "kind": one["kind"],
                "files": one["files"],
                "bytes": one["size"],
                "source": one["source"],
                "sha256": one["sha256"],
            }
            for one in self._told["versions"]
        ]
        columns = ["version", "runs", "created", "author", "kind", "files", "bytes", "source"]
        return pd.DataFrame(rows, columns=[*columns, "sha256"]).set_index("version")

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
        listed = None if groups is None else list(groups)
        given = {"title": title, "description": description, "groups": listed}
        return self._change({key: value for key, value in given.items() if value is not None})

    def roll_back(self, version: int) -> WebApp:
        """Run another version; the ones after it are kept."""
        return self._change({"current": version})

    def unpublish(self, *, delete: bool = False) -> None:
        """Take it away: it is stopped, and nobody can open it. `republish` brings it back.

        Parameters
        ----------
        delete : bool, default False
            Delete all versions and all that it has stored for good as well.
        """
        if delete:
            self._client.ask("DELETE", f"/{self.name}")
        else:
            self._change({"hidden": True})

    def republish(self) -> WebApp:
        """Let its groups open it again."""
        return self._change({"hidden": False})

    def _change(self, fields: dict[str, Any]) -> WebApp:
        self._told = self._client.ask("PATCH", f"/{self.name}", fields)
        return self

    def _facts(self) -> list[tuple[str, str]]:
        seen = "nobody: it is unpublished" if self.hidden else ", ".join(self.groups)
        kind = {"shiny": "Shiny", "dash": "Dash"}[self.kind]
        return [
            ("App", f"{kind}, version {self.version}, {self.state}"),
            ("Owner", self.owner or "the lab"),
            ("For", seen),
        ]

    def __repr__(self) -> str:
        return collection.lines(self.title, self._facts(), self.url)

    def _repr_html_(self) -> str:
        """Return it as HTML; every value is escaped."""
        return collection.card(self.title, self._facts(), self.url, "Open the app")


class WebApps(collection.Collection[WebApp]):
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

    def __init__(self, client: Client) -> None:
        told = client.ask("GET", "")
        self.user = str(told["user"])
        self.groups = [str(group) for group in told["groups"]]
        self.may_publish = bool(told["may_publish"])
        self.size = int(told["size"])
        super().__init__({one["name"]: WebApp(client, one) for one in told["apps"]})

    def table(self) -> pd.DataFrame:
        """Return them as a table."""
        import pandas as pd

        columns = ["title", "kind", "owner", "version", "for", "state", "url"]
        rows = [
            [one.title, one.kind, one.owner, one.version, ", ".join(one.groups), one.state, one.url]
            for one in self
        ]
        return pd.DataFrame(rows, columns=columns, index=pd.Index(list(self._all), name="name"))


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
    problems = [*check_name(name), *check_texts(texts)]
    if isinstance(groups, str):
        problems.append(Problem("groups", "a list is needed.", f"groups=[{groups!r}]"))
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
        me = client.ask("GET", "")
        package = collect(place, int(me["size"]))
        problems += package.problems
        if groups is not None and not isinstance(groups, str):
            kept = [group for one in me["apps"] if one["name"] == name for group in one["groups"]]
            problems += check_audience(groups, me["groups"], admin=me["admin"], kept=kept)
        refuse(problems)
        if package.left_out:
            some = ", ".join(package.left_out[:5]) + (" …" if len(package.left_out) > 5 else "")
            say(f"Left out: {some}")
        said = {key: text for key, text in texts.items() if text is not None}
        fields: dict[str, Any] = {**said, "source": made_from[: TEXTS["source"]]}
        if groups is not None:
            fields["groups"] = list(groups)
        told = _send(client, name, package, fields, Path(scratch), say)
    say("Starting it …")
    app = WebApp(client, told).start()
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
    same = _same(client, name, archive)
    if same is not None:
        say(f"These files are version {same} already: nothing is sent.")
        changes = {key: value for key, value in fields.items() if key != "source"}
        told: dict[str, Any] = client.ask(
            "PATCH", f"/{name}", {**changes, "current": same, "hidden": False}
        )
        return told
    body = scratch / "body"
    with body.open("wb") as stream:
        stream.write(json.dumps(fields).encode() + b"\n")
        stream.write(archive.read_bytes())
    size = body.stat().st_size

    def tell(sent: int) -> None:
        say(f"Sending it ({len(package.files)} file(s)): {100 * sent // size} %")

    sent: dict[str, Any] = client.send(f"/{name}/package", body, tell)
    return sent


def _same(client: Client, name: str, archive: Path) -> int | None:
    """Return the version that has the same files already."""
    try:
        known = client.ask("GET", f"/{name}")
    except WebAppError as error:
        if error.status != 404:
            raise
        return None
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    same = (one["number"] for one in reversed(known["versions"]) if one["sha256"] == digest)
    return next(same, None)


def _does_not_start(app: WebApp) -> str:
    try:
        lines = app.logs(_TAIL)
    except WebAppError:
        lines = ""
    told = "\n".join(f"    {line}" for line in lines.splitlines())
    return (
        f"'{app.name}' was published and does not start. Its log ends with:\n{told}\n"
        "Next step: correct and publish it again; labkit.published_apps() has the version before."
    )
