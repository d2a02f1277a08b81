"""What labkit adds to a user's Jupyter server: a fast proxy, honest activity, two pages.

It replaces jupyter-server-proxy's data plane and keeps its addresses and configuration.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from labkit.server.app import LabkitServer

    return [{"module": "labkit.server", "app": LabkitServer}]
