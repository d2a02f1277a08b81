"""The table of what failed: shown with its reasons whole, where pandas cuts texts at 50 letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

_WHOLE = ("display.max_colwidth", None, "display.max_columns", None)


class FailedColumn(pd.Series):  # type: ignore[type-arg]
    """A column of :class:`FailedTable`."""

    @property
    def _constructor(self) -> Callable[..., FailedColumn]:
        return FailedColumn

    @property
    def _constructor_expanddim(self) -> Callable[..., FailedTable]:
        return FailedTable

    def __repr__(self) -> str:
        with pd.option_context(*_WHOLE):
            return super().__repr__()


class FailedTable(pd.DataFrame):
    """A DataFrame whose texts and columns are all shown; what is selected from it is one, too."""

    @property
    def _constructor(self) -> Callable[..., FailedTable]:
        return FailedTable

    @property
    def _constructor_sliced(self) -> Callable[..., FailedColumn]:
        return FailedColumn

    def __repr__(self) -> str:
        with pd.option_context(*_WHOLE):
            return super().__repr__()

    def _repr_html_(self) -> Any:
        with pd.option_context(*_WHOLE):
            return super()._repr_html_()  # type: ignore[misc]
