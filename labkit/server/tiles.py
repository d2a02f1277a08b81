"""Tiles of JupyterLab's launcher: they lead to pages of this server."""

from __future__ import annotations

from pathlib import Path

from jupyter_server_proxy.config import ServerProcess

from labkit.server import previews

DATA = Path(__file__).parent / "data"
_CATEGORY = "Notebook"  # elsewhere JupyterLab shows no icon that has an address


def tiles() -> list[ServerProcess]:
    """Return the tiles, as entries of jupyter-server-proxy: its JupyterLab part shows them."""
    shiny = [_tile("labkit-shiny", "Shiny preview", "labkit/shiny/", "shiny.svg")]
    return [
        _tile("labkit-cellxgene", "CellxGene", "labkit/cellxgene/", "cellxgene.svg"),
        *(shiny if previews.program() else ()),
        _tile("labkit-server", "My server", "labkit/", "server.svg"),
    ]


def _tile(name: str, title: str, path: str, icon: str) -> ServerProcess:
    tile = ServerProcess(name=name)
    tile.launcher_entry = {
        "title": title,
        "path_info": path,
        "icon_path": str(DATA / "static" / icon),
        "category": _CATEGORY,
    }
    return tile
