"""Who may do what with members' apps, beside what holds of all published things.

Everything is checked here, on the portal's side, whatever the notebook has checked before.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hub.apps import catalogue, member_records, member_service
from hub.apps.declaration import name_problem
from hub.apps.member_records import MemberApp, Version
from hub.apps.members import package
from hub.labfile.schema import Settings
from hub.state.paths import Paths
from labkit.base.files import LockTimeoutError, locked
from labkit.base.problems import Problem
from labkit.portal.webapps.rules import SOURCE, check_size
from services.appkit.person import Person
from services.appkit.published.publisher import Publisher, now
from services.appkit.published.statements import Change, RefusedPublishError, Statement
from services.member_apps import SYSTEM_PATH

_LOCK_SECONDS = 120.0  # that a change waits for another one to end


class Announcement(Statement):
    """What is said of an app when it is published; None keeps what was.

    Attributes
    ----------
    source : str
        What it was made from.
    size, files, kind : int, int, str or None
        What is to come: it is refused early by these, and accepted by none of them.
    """

    source: str = ""
    size: int = Field(0, ge=0, le=1 << 44)
    files: int = Field(0, ge=0, le=1 << 44)
    kind: Literal["shiny", "dash"] | None = None


class AppPublisher(Publisher[MemberApp, Version]):
    """The members' apps of one portal.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    taken : set of str, optional
        Names of services of the hub's that are not the portal's apps.
    """

    def __init__(
        self, settings: Settings, paths: Paths, taken: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(member_records.store(paths), MemberApp)
        self.settings = settings
        self.paths = paths
        self.taken = taken

    def described(self, app: MemberApp, person: Person) -> dict[str, Any]:
        """Return what a person is told of an app, as JSON knows it."""
        parts = self.settings.parts
        origin = f"{parts.scheme}://{app.name}--service.{parts.netloc}"
        mine = app.may_change(person)
        return {
            **app.described(person, f"{origin}/services/{app.name}/"),
            "kind": app.shown.kind,
            "versions": app.described_versions() if mine else [],
        }

    def may_publish(self, person: Person) -> bool:
        """Return whether the lab lets a person publish."""
        return person.admin or bool(person.groups & set(self.settings.webapps.groups))

    # -- what is wrong ----------------------------------------------------------------

    def problems(self, person: Person, name: str, statement: Statement) -> Iterator[Problem]:
        """Yield all that is wrong with publishing an app."""
        if self.rules.is_name(name) and (wrong := name_problem(name)):
            yield Problem("name", f"{wrong}.", "Choose another.")
        yield from self._portal_problems(person)
        if name not in self.records():
            yield from self._new_problems(person, name)
        yield from super().problems(person, name, statement)
        if isinstance(statement, Announcement):
            yield from SOURCE.check("source", statement.source)
            yield from self._kind_problems(person, statement.kind)
            yield from check_size(statement.files, statement.size, self.settings.webapps.size)
            yield from package.room(self.paths, statement.size)

    def change_problems(
        self, person: Person, record: MemberApp, change: Change
    ) -> Iterator[Problem]:
        """Yield what is wrong with a change of an app; to take it away is always allowed."""
        if change.hidden is not True:
            yield from self._portal_problems(person)
        yield from super().change_problems(person, record, change)

    def _portal_problems(self, person: Person) -> Iterator[Problem]:
        if not self.may_publish(person):
            named = ", ".join(self.settings.webapps.groups) or "only administrators, so far"
            text = "you may not publish apps in this lab."
            yield Problem("you", text, f"Who may: {named}. Ask an administrator.")
        service = member_service.trial(self.settings.webapps)
        for one in catalogue.misfits("portal", service, self.settings):
            yield Problem(one.where, f"{one.text}.", f"An administrator can {one.hint}.")

    def _kind_problems(self, person: Person, kind: str | None) -> Iterator[Problem]:
        hint = "Ask an administrator: docs/how-to/apps-of-your-own.md says what it takes."
        # The command line builds it.
        built = not person.name or self.paths.env_bin("dash", "python").exists()
        if kind == "dash" and not built:
            yield Problem("app", "the environment of Dash apps is not built here.", hint)
        if kind == "shiny" and shutil.which("Rscript", path=SYSTEM_PATH) is None:
            yield Problem("app", "there is no R on the portal's machine.", hint)

    def _new_problems(self, person: Person, name: str) -> Iterator[Problem]:
        if name in self.taken | {one for one, _, _ in catalogue.folders(self.paths)}:
            yield Problem("name", f"the portal has another app named '{name}'.", "Choose another.")
        limit = self.settings.webapps.each
        mine = [one.name for one in self.records().values() if one.owner == person.name]
        if len(mine) >= limit and not person.admin:
            text = f"you have {len(mine)} apps already, and the lab allows {limit}."
            hint = (
                f"Remove one for good, e.g. app.unpublish(delete=True); yours: {', '.join(mine)}."
            )
            yield Problem("name", text, hint)

    # -- what changes -----------------------------------------------------------------

    def publish(
        self, person: Person, name: str, announced: Announcement, archive: Path
    ) -> MemberApp:
        """Make an archive the version of an app that runs; `hub.apps.install` then runs it.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        """
        with self._changing():
            if problems := list(self.problems(person, name, announced)):
                raise RefusedPublishError(problems)
            with package.unpacked(self.paths, archive, self.settings.webapps.size) as files:
                if wrong := list(self._kind_problems(person, files.kind)):
                    raise RefusedPublishError(wrong)
                version = Version(
                    number=self.store.next_number(name),
                    created=now(),
                    author=person.name,
                    kind=files.kind,
                    files=files.files,
                    size=files.size,
                    sha256=files.sha256,
                    source=announced.source,
                )
                return self._keep(person, name, announced, version, files.folder, {})

    def change(self, person: Person, name: str, change: Change) -> MemberApp:
        """Change what is said of an app, which version runs, or whether it is published.

        Raises
        ------
        RefusedPublishError
            With all the reasons; nothing was changed.
        KeyError
            There is no such app, or it is not theirs to change.
        """
        with self._changing():
            return super().change(person, name, change)

    def remove(self, person: Person, name: str) -> None:
        """Remove an app with all its versions; its account and data go by `install.forget`.

        Raises
        ------
        KeyError
            There is no such app, or it is not theirs to change.
        """
        with self._changing():
            super().remove(person, name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one change happen at a time, of the hub's and of the command line's."""
        with ExitStack() as stack:
            try:
                lock = locked(self.paths.state / "webapps.lock", _LOCK_SECONDS, "the list of apps")
                stack.enter_context(lock)
            except LockTimeoutError:
                text = f"another change of its apps has gone on for {_LOCK_SECONDS:.0f} seconds."
                hint = "Try again in a minute; if it stays so, tell an administrator."
                raise RefusedPublishError([Problem("portal", text, hint)]) from None
            yield
