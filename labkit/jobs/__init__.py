"""Jobs: what is submitted, where it runs, and what became of it.

``labkit.jobs()`` lists mine: the package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.jobs.notebook.jobs import Jobs


class _CallablePackage(ModuleType):
    """``labkit.jobs`` is a package and, for people, a function."""

    def __call__(self, limit: int = 20) -> Jobs:
        """Return my jobs, the newest first; see :func:`labkit.jobs.job.jobs`.

        Parameters
        ----------
        limit : int
            How many at most.

        Returns
        -------
        Jobs
            A list, shown as a table.
        """
        from labkit.jobs.job import jobs

        return jobs(limit)


sys.modules[__name__].__class__ = _CallablePackage
