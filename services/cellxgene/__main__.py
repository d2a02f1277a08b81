"""Start the app: ``python -m services.cellxgene``, with what the portal says in variables."""

from __future__ import annotations

from labkit.viewers import paths
from labkit.viewers.cellxgene.memory import limit
from services.appkit import settings
from services.appkit.launch import Portal, run
from services.appkit.published.store import FolderStore, Store
from services.appkit.published.store_s3 import S3Store
from services.cellxgene.app import Parts, make_app
from services.cellxgene.pool import Limits as PoolLimits
from services.cellxgene.records import LAYOUT, Dataset, Version
from services.cellxgene.settings import Settings
from services.cellxgene.uploads import Limits as UploadLimits

# What this process, uploads and the answers it keeps take beside the viewers.
_OWN = 600 << 20


def parts(portal: Portal) -> Parts:
    """Return what the app is made of, by the settings in its data folder.

    Raises
    ------
    LabkitError
        A setting is wrong.
    EnvironmentMissingError
        CellxGene is not installed.
    """
    data = portal.data
    chosen = settings.read(data, Settings) or Settings()
    memory = chosen.memory or max(1 << 28, limit() - _OWN)
    store: Store[Dataset, Version]
    if chosen.store:
        store = S3Store(chosen.store, LAYOUT, data / "cache", chosen.cache)
    else:
        store = folder = FolderStore(data / "datasets", LAYOUT)
        folder.tidy()
    return Parts(
        portal=portal,
        store=store,
        folder=data,
        python=paths.program("cellxgene", "python"),
        viewers=PoolLimits(memory=memory, idle=60 * chosen.idle_minutes),
        uploads=UploadLimits(memory=memory, spare=chosen.spare_disk),
    )


if __name__ == "__main__":
    run(lambda portal: make_app(parts(portal)))
