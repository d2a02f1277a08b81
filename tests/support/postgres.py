"""A PostgreSQL server for tests: a plain process in a folder of its own, on loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from labkit.base.ports import free_ports

ACCOUNT = "postgres"  # the server refuses to run as root
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
needs_postgres = pytest.mark.skipif(
    os.geteuid() != 0 or not _BINARIES, reason="needs root and Debian's package postgresql"
)


class Postgres:
    """One server with one role and one database, both ``labhub``; a context manager."""

    def __init__(self) -> None:
        self.bin = _BINARIES[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="labhub-pg-", dir="/var/tmp"))
        shutil.chown(self.folder, ACCOUNT, ACCOUNT)
        (self.port,) = free_ports(1)
        self.password = secrets.token_urlsafe(16) + ":\\/@ %"  # what addresses must escape
        self.url = f"postgresql://labhub@127.0.0.1:{self.port}/labhub"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        file = self.folder / "password"
        file.write_text(self.password)
        shutil.chown(file, ACCOUNT, ACCOUNT)
        self._run(
            *("initdb", "-D", "data", "-U", "labhub", "--pwfile=password"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
        )
        self.start()
        self.sql("CREATE DATABASE labhub", database="postgres")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port)),
                    *("-h", "127.0.0.1", "-k", self.folder, "-c", "fsync=off"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=ACCOUNT,
                group=ACCOUNT,
                extra_groups=[],
            )
        end = time.monotonic() + 300
        while self._ready() != 0:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, ending all connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(300)
            self.process = None

    def change_password(self) -> None:
        """Give its role another password."""
        new = secrets.token_urlsafe(16)
        self.sql(f"ALTER ROLE labhub PASSWORD '{new}'")
        self.password = new

    def sql(self, query: str, database: str = "labhub") -> str:
        """Run a query; returns its rows, a line each."""
        done = self._run(
            *("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "labhub", "-d", database),
            *("-X", "-A", "-t", "-q", "-c", query),
        )
        return done.strip()

    def _ready(self) -> int:
        words = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(words, check=False).returncode

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [self.bin / program, *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=ACCOUNT,
            group=ACCOUNT,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGPASSWORD": self.password},
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")
        return done.stdout
