"""What Label Studio is started with, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.appkit.settings import FILE
from services.label_studio.configuration import SettingsError, variables


def made(data: Path, **chosen: Any) -> dict[str, str]:
    """Return the variables for an administrator's settings."""
    (data / FILE).write_text(json.dumps(chosen))
    url = "https://label-studio--service.lab.example/services/label-studio/"
    return variables({"LABHUB_APP_DATA": str(data), "LABHUB_APP_URL": url})


def test_a_file_is_the_database_and_nothing_is_sent(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found["LABEL_STUDIO_DJANGO_DB"] == "sqlite"
    assert found["LABEL_STUDIO_COLLECT_ANALYTICS"] == "false"
    assert found["LABEL_STUDIO_SENTRY_DSN"] == ""
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED" not in found


def test_postgresql_is_told_with_its_password_from_a_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    found = made(tmp_path, postgresql={"host": "db.lab.example", "password_file": str(password)})
    told = {name.removeprefix("LABEL_STUDIO_"): value for name, value in found.items()}
    assert told["DJANGO_DB"] == "default"
    assert told["POSTGRE_HOST"] == "db.lab.example"
    assert (told["POSTGRE_PORT"], told["POSTGRE_NAME"]) == ("5432", "label_studio")
    assert told["POSTGRE_PASSWORD"] == "s3cret"
    password.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        made(tmp_path, postgresql={"host": "db", "password_file": str(password)})


def test_all_mistakes_are_named_at_once_without_values(tmp_path: Path) -> None:
    wrong = {"postgresql": {"port": 0, "password": "hunter2"}, "s3": True}
    with pytest.raises(SettingsError) as refused:
        made(tmp_path, **wrong)
    for place in ("postgresql.host", "postgresql.port", "postgresql.password", "s3"):
        assert place in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_shared_folder_and_s3_are_told(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_secret_access_key = s3cret\n")
    found = made(
        tmp_path,
        local_files=str(tmp_path),
        s3={"endpoint": "https://s3.lab.example:9000", "credentials_file": str(credentials)},
    )
    told = {name.removeprefix("LABEL_STUDIO_"): value for name, value in found.items()}
    assert told["LOCAL_FILES_SERVING_ENABLED"] == "true"
    assert told["LOCAL_FILES_DOCUMENT_ROOT"] == str(tmp_path)
    assert told["S3_ENDPOINT"] == "https://s3.lab.example:9000"
    assert told["AWS_SHARED_CREDENTIALS_FILE"] == str(credentials)
    assert "s3cret" not in str(found)
    with pytest.raises(SettingsError, match=r"storage\.shared"):
        made(tmp_path, local_files=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read"):
        made(tmp_path, s3={"credentials_file": str(tmp_path / "none")})
    with pytest.raises(SettingsError) as refused:
        made(tmp_path, s3={"endpoint": "s3://bucket", "region": "eu west", "key": "hunter2"})
    for place in ("s3.endpoint", "s3.region", "s3.key"):
        assert place in str(refused.value)
    assert "hunter2" not in str(refused.value)
