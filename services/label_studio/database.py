"""Label Studio's database: begun from an empty one, and brought up to date at each start."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from labkit.base import files

SQLITE = "label_studio.sqlite3"
_KEEP = 2  # databases from before an upgrade


def find_label_studio() -> None:
    """Put Label Studio's own folder on the path: its modules import each other from there."""
    spec = importlib.util.find_spec("label_studio")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("labhub: Label Studio is not installed. Call: labhub up")
    sys.path.insert(0, next(iter(spec.submodule_search_locations)))


def template(prefix: Path) -> Path:
    """Return the empty database of an environment, which its `verify` makes."""
    return prefix / "share" / "label-studio" / SQLITE


def prepare(data: Path, prefix: Path) -> None:
    """Make the database if there is none, and bring it to this version's form.

    Parameters
    ----------
    data : Path
        The app's data folder.
    prefix : Path
        The environment.
    """
    find_label_studio()
    file = data / SQLITE
    sqlite = os.environ["LABEL_STUDIO_DJANGO_DB"] == "sqlite"
    if sqlite and not file.exists() and template(prefix).exists():
        # From nothing its more than two hundred migrations take a minute.
        with files.temporary_beside(file) as new:
            shutil.copyfile(template(prefix), new)
            files.put_in_place(new, file)
    import django
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    django.setup()
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        print(f"labhub: the database is brought up to date: {len(plan)} steps", flush=True)
        if sqlite and file.exists() and file.stat().st_size:
            _keep(file)
        call_command("migrate", interactive=False, verbosity=1)
    connection.close()


def _keep(file: Path) -> None:
    """Keep the database as it is before an upgrade."""
    copy = file.with_name(f"{file.stem}-{time.strftime('%Y%m%d-%H%M%S')}.bak")
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    for old in sorted(file.parent.glob(f"{file.stem}-*.bak"))[:-_KEEP]:
        old.unlink()
