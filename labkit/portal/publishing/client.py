"""What every client of published things can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from labkit.portal.client import AppClient, AppError


class PublishingClient(AppClient):
    """The publications of one kind, as one person; a subclass says where they are."""

    #: Path of all of them below the API, and what one's path begins with.
    listing: ClassVar[str]
    one: ClassVar[str]

    def list_all(self) -> dict[str, Any]:
        """Return who asks, and the publications that they may know of."""
        answer: dict[str, Any] = self.ask("GET", self.listing)
        return answer

    def get(self, name: str) -> dict[str, Any]:
        """Return one publication, with its versions."""
        answer: dict[str, Any] = self.ask("GET", f"{self.one}{name}")
        return answer

    def get_if_any(self, name: str) -> dict[str, Any] | None:
        """Return one publication; None where there is none that this person may know of."""
        try:
            return self.get(name)
        except AppError as error:
            if error.status != 404:
                raise
            return None

    def change(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Change what is said of one, its current version, or whether it is published."""
        answer: dict[str, Any] = self.ask("PATCH", f"{self.one}{name}", dict(fields))
        return answer

    def delete(self, name: str) -> None:
        """Delete one with all its versions."""
        self.ask("DELETE", f"{self.one}{name}")


def same_version(publication: Mapping[str, Any] | None, sha256: str) -> int | None:
    """Return the newest version that was made from the same bytes.

    Parameters
    ----------
    publication : mapping or None
        What the portal says of it; None where there is none.
    sha256 : str
        Of what would be sent.
    """
    # Whoever may not change it learns from the portal's refusal, not from a silent roll-back.
    if publication is None or not publication["may_change"]:
        return None
    versions = reversed(publication["versions"])
    return next((one["number"] for one in versions if one["sha256"] == sha256), None)
