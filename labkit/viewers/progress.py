"""Show the steps of long work: one line that changes in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shown(progress: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """Give a function to tell each step with; the line in the notebook goes when all is done.

    Parameters
    ----------
    progress : callable or None
        The caller's own function, which is then the one given.
    """
    if progress is not None:
        yield progress
        return
    if not _in_notebook():
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    from IPython.display import DisplayHandle

    handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
    handle.display({"text/plain": ""}, raw=True)
    yield lambda text: handle.update({"text/plain": text}, raw=True)
    handle.update({"text/html": ""}, raw=True)


def _in_notebook() -> bool:
    """Return whether a notebook kernel runs this, without importing IPython elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
