"""What Label Studio reads from its environment, made from what the portal says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from labkit.base.problems import ProblemsError
from services.appkit import settings

# Nothing is sent to Label Studio's makers, nothing fetched from them.
_QUIET = {
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    # The sandbox closes the cloud's metadata; boto3 would wait for it.
    "AWS_EC2_METADATA_DISABLED": "true",
}


class SettingsError(ValueError):
    """The administrator's settings are wrong; the text says how."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PostgreSQL(_Strict):
    """A database server in place of the file."""

    host: str
    port: int = Field(5432, ge=1, le=65535)
    database: str = "label_studio"
    user: str = "label_studio"
    password_file: Path | None = Field(None, description="a file that holds the password alone")


class S3(_Strict):
    """What projects' storage in S3 uses that has no keys or endpoint of its own."""

    credentials_file: Path | None = Field(None, description="in the AWS command line's form")
    endpoint: str | None = Field(
        None, pattern=r"^https?://[\w.-]+(:\d+)?/?$", description="of a store that is not AWS"
    )
    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,40}$")


class Chosen(_Strict):
    """What the administrator may choose."""

    postgresql: PostgreSQL | None = None
    local_files: Path | None = Field(
        None, description="a shared folder whose files can be storage of projects"
    )
    s3: S3 | None = None


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return Label Studio's variables.

    Parameters
    ----------
    given : mapping of str to str
        The portal's.

    Raises
    ------
    SettingsError
        With all that is wrong with the file ``settings.json`` of the data folder.
    KeyError
        A variable of the portal is missing.
    """
    data = Path(given["LABHUB_APP_DATA"])
    out = {
        **_QUIET,
        "DJANGO_SETTINGS_MODULE": "services.label_studio.settings",
        "LABEL_STUDIO_HOST": given["LABHUB_APP_URL"].rstrip("/"),
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_DEBUG": "false",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LABEL_STUDIO_INACTIVITY_SESSION_TIMEOUT_ENABLED": "0",
        "LABEL_STUDIO_CORS_ALLOW_ALL_ORIGINS": "false",
        "LABEL_STUDIO_DJANGO_DB": "sqlite",
    }
    chosen = read(data)
    if chosen.local_files is not None:
        if not chosen.local_files.is_dir():
            text = "is not there; is it below one of the lab file's storage.shared?"
            raise SettingsError(f"{data / settings.FILE} local_files: {chosen.local_files} {text}")
        out["LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED"] = "true"
        out["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] = str(chosen.local_files)
    if chosen.s3 is not None:
        out |= _s3(chosen.s3)
    server = chosen.postgresql
    if server is not None:
        out |= {
            "LABEL_STUDIO_DJANGO_DB": "default",
            "LABEL_STUDIO_POSTGRE_HOST": server.host,
            "LABEL_STUDIO_POSTGRE_PORT": str(server.port),
            "LABEL_STUDIO_POSTGRE_NAME": server.database,
            "LABEL_STUDIO_POSTGRE_USER": server.user,
        }
        if server.password_file is not None:
            out["LABEL_STUDIO_POSTGRE_PASSWORD"] = _secret(server.password_file)
    return out


def _s3(chosen: S3) -> dict[str, str]:
    out = {}
    if chosen.credentials_file is not None:
        _secret(chosen.credentials_file)  # that it can be read is said now, not at the first use
        out["AWS_SHARED_CREDENTIALS_FILE"] = str(chosen.credentials_file)
    if chosen.endpoint is not None:
        out["LABEL_STUDIO_S3_ENDPOINT"] = chosen.endpoint
    if chosen.region is not None:
        out["LABEL_STUDIO_S3_region"] = chosen.region  # their spelling
    return out


def read(data: Path) -> Chosen:
    """Read the administrator's settings; none where there is no file.

    Raises
    ------
    SettingsError
        With all that is wrong with them.
    """
    try:
        return settings.read(data, Chosen) or Chosen()
    except ProblemsError as error:
        raise SettingsError(str(error)) from None


def _secret(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
