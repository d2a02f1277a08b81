"""The lab file's section ``database``."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator

from hub.labfile.fields import Frozen

_POSTGRESQL = ("postgresql", "postgresql+psycopg")
_SECRET_KEYS = frozenset({"password", "sslpassword"})


class Database(Frozen):
    """Where the hub keeps users, tokens and running servers.

    The password of a database server is no setting: it is the file ``database_password`` in the
    portal's secrets folder, or the variable LABHUB_DATABASE_PASSWORD.
    """

    url: str | None = Field(
        None,
        description="postgresql://user@host:5432/name or sqlite:////absolute/path;"
        " default: SQLite, jupyterhub.sqlite in the state folder",
    )

    @field_validator("url")
    @classmethod
    def _known_kind_and_no_password(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            password, _ = parts.password, parts.port
        except ValueError:
            raise ValueError("must be like postgresql://user@host:5432/name") from None
        if password is not None or _SECRET_KEYS & parse_qs(parts.query).keys():
            # The text of the problem never holds it.
            raise ValueError(
                "must not hold the password: write it into the file database_password"
                " in the secrets folder (mode 600)"
            )
        if parts.scheme == "sqlite":
            _check_sqlite(value)
        elif parts.scheme not in _POSTGRESQL or not parts.path.strip("/"):
            raise ValueError(
                "must be like postgresql://user@host:5432/name or sqlite:////absolute/path"
            )
        return value


def _check_sqlite(url: str) -> None:
    path = PurePosixPath(url.removeprefix("sqlite:///"))
    plain = url.startswith("sqlite:////") and not set(url) & {"?", "#", "%"} and url.isprintable()
    if not plain or ".." in path.parts or not path.name:
        raise ValueError("SQLite needs an absolute path: sqlite:////srv/labhub/hub.sqlite")
