"""An app that has stored things, in a state folder without a portal: for backups."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hub.apps.app_paths import AppPaths
from hub.state import create
from hub.state.paths import Paths

APP = """title: Plates
command: [python, app.py]
backup: [plates.sqlite3, pictures, notes.txt]
"""


@contextmanager
def state_with_app(name: str = "plates") -> Iterator[Paths]:
    """Give a state folder in which an app is declared."""
    folder = Path(tempfile.mkdtemp(prefix="labhub-test-", dir="/var/tmp"))
    folder.chmod(0o711)
    made = Paths(state=folder / "state", envs=folder / "envs")
    create.make_folders(made)
    create.make_lab_file(made)
    create.make_secrets(made)
    declare(made, name)
    try:
        yield made
    finally:
        begin = AppPaths(made).account("")
        for entry in pwd.getpwall():
            if entry.pw_name.startswith(begin):
                subprocess.run(["userdel", entry.pw_name], check=False, capture_output=True)
        shutil.rmtree(folder)


def declare(paths: Paths, name: str) -> None:
    """Declare an app of the lab's."""
    folder = paths.state / "services" / name
    folder.mkdir(parents=True)
    (folder / "service.yaml").write_text(APP)


def store(paths: Paths, name: str = "plates") -> Path:
    """Let an app have stored things, as its account owns them; returns its data folder."""
    owner = AppPaths(paths).make_app(name)
    made = AppPaths(paths).data(name)
    (made / "pictures" / "deep").mkdir(parents=True)
    (made / "pictures" / "deep" / "a.png").write_bytes(b"picture")
    (made / "scratch").write_text("not named in service.yaml")
    with closing(sqlite3.connect(made / "plates.sqlite3")) as db:
        db.execute("CREATE TABLE wells (name TEXT)")
        db.execute("INSERT INTO wells VALUES ('A01')")
        db.commit()
    for path in made.rglob("*"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return made
