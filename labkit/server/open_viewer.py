"""Open data in CellxGene in a process of its own: ``python -m labkit.server.open_viewer``.

Reads a JSON object with ``path`` and ``force`` from standard input; writes one JSON object per
line: ``{"step": ...}`` while it works, then ``{"port": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Open what standard input names; return the exit status."""
    import labkit
    from labkit.base import activity

    asked = json.load(sys.stdin)
    path = Path(asked["path"])
    try:
        with activity.hold(f"opening {path.name} in CellxGene"):
            card = labkit.cellxgene(
                path, force=bool(asked["force"]), progress=lambda text: _say(step=text)
            )
    except Exception as error:  # whoever opened it waits for a word, whatever happened
        _say(error=str(error) or type(error).__name__, kind=type(error).__name__)
        return 1
    _say(port=card.port, changes=card.changes, notes=card.notes)
    return 0


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    sys.exit(main())
