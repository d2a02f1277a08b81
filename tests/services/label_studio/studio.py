"""Label Studio by itself, without a portal: asked on its socket as the gate asks it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.cli_portal import eventually
from tests.support.portal import REPOSITORY, built_envs

SECRET = "s" * 32
HOST = "label-studio--service.lab.example"
SETUP = """\
import os, sys
from pathlib import Path
from services.label_studio import configuration, database
os.environ.update(configuration.variables(os.environ))
database.find_label_studio()
import django
django.setup()
from django.core.management import call_command
"""


class Studio:
    """One data folder, and the program on it; use as a context manager.

    Parameters
    ----------
    settings : mapping
        The administrator's ``settings.json``.
    """

    shared: Path  # with pictures

    def __init__(self, settings: dict[str, Any]) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="ls-"))  # short: a socket is below it
        self.socket = self.data / "app.sock"
        (self.data / "settings.json").write_text(json.dumps(settings))
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.data),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LABHUB_APP_DATA": str(self.data),
            "LABHUB_APP_SECRET": SECRET,
            "LABHUB_APP_PREFIX": "/services/label-studio/",
            "LABHUB_APP_URL": f"http://{HOST}/services/label-studio/",
            "LABHUB_APP_SOCKET": str(self.socket),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url=f"http://{HOST}",
            headers={
                "X-Labhub-User": "ada",
                "X-Labhub-App-Secret": SECRET,
                "X-Forwarded-Proto": "http",
            },
            timeout=60,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.http.close()
        shutil.rmtree(self.data)

    def _python(self, *words: str) -> Sequence[str]:
        return [str(built_envs() / "label-studio" / "bin" / "python"), *words]

    @property
    def log(self) -> str:
        return (self.data / "log").read_text(errors="replace")

    def start(self) -> None:
        with (self.data / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._python("-m", "services.label_studio"),
                env=self._environment,
                cwd=self.data,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            assert self._process is not None and self._process.poll() is None, self.log
            try:
                return self.http.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers, 150, say=f"it does not start\n{self.log if self.data else ''}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def run(self, code: str) -> None:
        """Run Python with Label Studio's own modules on the data."""
        subprocess.run(
            self._python("-c", SETUP + code),
            env=self._environment,
            cwd=self.data,
            check=True,
            capture_output=True,
            timeout=120,
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        # As programs do: they have no cookie that a stranger's page could use.
        answer = self.http.request(method, path, json=body)
        assert answer.is_success, (path, answer.status_code, answer.text[:2000])
        return answer.json() if answer.content else None
