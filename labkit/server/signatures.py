"""The signatures of trusted notebooks as small files: Jupyter's own database needs locks.

On a home that several nodes share (NFS, EFS) a lock may hang for ever, and the server with it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir
from nbformat.sign import NotebookNotary, SignatureStore

_MOST = 20_000  # signatures
_NAME = re.compile(r"[a-z0-9_]{1,20}-[0-9a-f]{16,128}")


class FolderStore(SignatureStore):  # type: ignore[misc]
    """A signature is the name of an empty file.

    Parameters
    ----------
    folder : Path
        Where they are; made when the first is kept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def store_signature(self, digest: str, algorithm: str) -> None:
        """Keep a signature; without a place for it the notebook is asked for again."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path(digest, algorithm).touch(mode=0o600)
            self._cull()

    def check_signature(self, digest: str, algorithm: str) -> bool:
        """Whether a signature was kept."""
        try:
            return self._path(digest, algorithm).exists()
        except OSError:
            return False

    def remove_signature(self, digest: str, algorithm: str) -> None:
        """Forget a signature."""
        with contextlib.suppress(OSError):
            self._path(digest, algorithm).unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, digest: str, algorithm: str) -> Path:
        name = f"{algorithm}-{digest}"
        if not _NAME.fullmatch(name):
            raise OSError(22, "no signature", name)
        return self._folder / name

    def _cull(self) -> None:
        entries = list(self._folder.iterdir())
        if len(entries) > _MOST:
            for path in sorted(entries, key=lambda one: one.stat().st_mtime)[: _MOST // 4]:
                path.unlink(missing_ok=True)


def keep_as_files(serverapp: Any) -> None:
    """Let a Jupyter server keep signatures without a database, before it has opened that.

    Parameters
    ----------
    serverapp : jupyter_server.serverapp.ServerApp
        The server.
    """
    folder = Path(jupyter_data_dir()) / "labkit-signatures"
    manager = serverapp.contents_manager
    make: Any = NotebookNotary
    manager.notary = make(parent=manager, store_factory=lambda: FolderStore(folder))
