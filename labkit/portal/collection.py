"""What published things have in common in a notebook: a card for one, a collection of all."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from labkit.base.problems import refuse, unknown_name

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")


def card(title: str, facts: Sequence[tuple[str, str]], url: str, link: str) -> str:
    """Return HTML that shows one thing; every value is escaped.

    Parameters
    ----------
    facts : sequence of (str, str)
        What is told of it, by name.
    link : str
        What the link to ``url`` says.
    """
    rows = "".join(
        f"<tr><th scope='row' style='text-align:left;padding-right:1rem'>{html.escape(name)}"
        f"</th><td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    place = html.escape(url, quote=True)
    return (
        "<div style='border:1px solid var(--jp-border-color1,#bdbdbd);border-radius:8px;"
        "padding:12px 16px;max-width:44rem;font-family:var(--jp-ui-font-family,sans-serif)'>"
        f"<strong>{html.escape(title)}</strong><table style='margin:4px 0 8px'>{rows}"
        f"</table><a href='{place}' target='_blank' rel='noopener'>{html.escape(link)}</a> "
        f"<code>{place}</code></div>"
    )


def lines(title: str, facts: Sequence[tuple[str, str]], url: str) -> str:
    """Return the same as text, for a terminal."""
    width = max(len(name) for name, _ in facts)
    return "\n".join([f"{title}  {url}", *(f"  {name:<{width}}  {value}" for name, value in facts)])


class Collection(ABC, Generic[Item]):
    """All things of a kind that a person may see, by name.

    Parameters
    ----------
    items : mapping of str to Item
        By name, in the order in which they are shown.
    """

    #: What one is called where its name is unknown, and what is said where there is none.
    kind: ClassVar[str]
    nothing: ClassVar[str]

    def __init__(self, items: Mapping[str, Item]) -> None:
        self._all = dict(items)

    def __getitem__(self, name: str) -> Item:
        if name not in self._all:
            refuse([unknown_name(self.kind, name, self._all)])
        return self._all[name]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, name: object) -> bool:
        return name in self._all

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """Return them as a table."""

    def __repr__(self) -> str:
        return str(self.table()) if self._all else self.nothing

    def _repr_html_(self) -> str:
        if not self._all:
            return f"<p>{html.escape(self.nothing)}</p>"
        return str(self.table().to_html(escape=True))
