"""Ctrl-C while waiting, said in one line."""

from __future__ import annotations


class Detached(KeyboardInterrupt):
    """Ctrl-C while waiting: the job goes on."""

    def _render_traceback_(self) -> list[str]:
        """Say it in one line instead of a traceback (IPython asks for it)."""
        return [str(self)]
