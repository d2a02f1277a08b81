"""AWS on loopback: a server of moto's in a process of its own, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from labkit.base import process_tree
from labkit.base.ports import LOOPBACK, free_ports
from labkit.testing.machine import ClusterError

_STARTS = 120.0  # seconds; a loaded machine imports moto slowly
_REGION = "us-east-1"
_SECRET = "moto-checks-no-signature"  # noqa: S105 -- stands in for one


class MotoServer:
    """A server that answers for AWS (S3, Batch's control plane, …) on a free port of 127.0.0.1.

    It needs the package ``moto[server]``. It ends with the process that started it.

    Parameters
    ----------
    module : str
        What Python runs: moto's own server, or one that does more; it gets ``-p PORT -H HOST``.
    environment : mapping of str to str
        More environment variables for it.

    Attributes
    ----------
    url : str
        Its endpoint.
    """

    def __init__(
        self, module: str = "moto.server", environment: Mapping[str, str] | None = None
    ) -> None:
        self._module = module
        self._more = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs that shall take this server for AWS."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_REGION": _REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def client_options(self) -> dict[str, Any]:
        """Arguments of ``boto3.client(service, **options)``."""
        return {
            "endpoint_url": self.url,
            "region_name": _REGION,
            "aws_access_key_id": "test",
            "aws_secret_access_key": _SECRET,
        }

    def __enter__(self) -> Self:
        for _ in range(5):  # somebody else may take the port first
            if self._start():
                return self
        raise ClusterError("moto's server does not start; is moto[server] installed?")

    def _start(self) -> bool:
        (port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{port}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, "-H", LOOPBACK, "-p", str(port)],
            env={**env, **self._more, "MOTO_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=process_tree.die_with_parent,
        )
        deadline = time.monotonic() + _STARTS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=60).close()  # noqa: S310
                return self._process.poll() is None
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        self._stop()
        return False

    def reset(self) -> None:
        """Forget everything: no bucket, no job is left."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", data=b"")  # noqa: S310
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
