"""IPython's settings in the lab's environments: no history on storage whose locks may hang."""

from pathlib import Path

try:
    from labkit.base.scratch import ipython_history
except ImportError:  # labkit is being installed
    history = ""
else:
    history = ipython_history(Path.home())

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - IPython's own
if history:
    c.HistoryManager.hist_file = history
