"""Start the app: ``python -m services.cellxgene``, with what the portal says in variables."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from aiohttp import web

from labkit.base.problems import LabkitError
from labkit.viewers import paths
from labkit.viewers.cellxgene.memory import limit
from services.cellxgene import settings
from services.cellxgene.app import Parts, make_app
from services.cellxgene.pool import Limits as PoolLimits
from services.cellxgene.store import FolderStore, Store
from services.cellxgene.store_s3 import S3Store
from services.cellxgene.uploads import Limits as UploadLimits

# What this process, uploads and the answers it keeps take beside the viewers.
_OWN = 600 << 20


def parts(data: Path, prefix: str, secret: str) -> Parts:
    """Return what the app is made of, by the settings in its data folder.

    Raises
    ------
    LabkitError
        A setting is wrong.
    EnvironmentMissingError
        CellxGene is not installed.
    """
    chosen = settings.read(data)
    memory = chosen.memory or max(1 << 28, limit() - _OWN)
    store: Store
    if chosen.store:
        store = S3Store(chosen.store, data / "cache", chosen.cache)
    else:
        store = FolderStore(data / "datasets")
    return Parts(
        prefix=prefix,
        secret=secret,
        store=store,
        folder=data,
        python=paths.program("cellxgene", "python"),
        viewers=PoolLimits(memory=memory, idle=60 * chosen.idle_minutes),
        uploads=UploadLimits(memory=memory, spare=chosen.spare_disk),
    )


def main() -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        app = make_app(
            parts(
                data=Path(os.environ["LABHUB_APP_DATA"]),
                prefix=os.environ["LABHUB_APP_PREFIX"],
                secret=os.environ["LABHUB_APP_SECRET"],
            )
        )
    except KeyError as error:
        sys.exit(f"{error.args[0]} is not set: the portal starts this app (labhub app status).")
    except (LabkitError, paths.EnvironmentMissingError, ValueError) as error:
        sys.exit(str(error))
    web.run_app(app, path=os.environ["LABHUB_APP_SOCKET"], print=None, access_log=None)


if __name__ == "__main__":
    main()
