"""What a notebook holds of published things: one, and the list of all that I may see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from labkit.portal import collection
from labkit.portal.publishing.client import PublishingClient

if TYPE_CHECKING:
    import pandas as pd

Client = TypeVar("Client", bound=PublishingClient)


class Publication(ABC, Generic[Client]):
    """A published thing; a subclass says what its kind has besides.

    Attributes
    ----------
    name, title, description, owner : str
        Which one, and whose.
    groups : list of str
        Who may open it, besides its owner and administrators.
    url : str
        Where it is.
    """

    #: What one is called, what its link says, and fields that it has besides.
    noun: ClassVar[str]
    link: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()
    #: Of the table of versions: the column that marks the current one, and those of this kind.
    mark: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, client: Client, state: Mapping[str, Any]) -> None:
        self._client = client
        self._state = dict(state)

    def __getattr__(self, name: str) -> Any:
        known = ("name", "title", "description", "owner", "groups", "url", *type(self).fields)
        if name in known:
            return self._state[name]
        raise AttributeError(f"a published {self.noun} has no {name!r}")

    @property
    def version(self) -> int:
        """Number of the version that is current."""
        return int(self._state["current"])

    @property
    def hidden(self) -> bool:
        """Whether it was unpublished; its versions are kept."""
        return bool(self._state["hidden"])

    def refresh(self) -> Self:
        """Ask again how it is."""
        self._state = self._client.get(self.name)
        return self

    def versions(self) -> pd.DataFrame:
        """Return all versions: when, who, size, and what each was made from."""
        import pandas as pd

        self.refresh()
        rows = [
            [
                *(one["number"], one["number"] == self.version, one["created"], one["author"]),
                *self._version_row(one),
                *(one["size"], one["sha256"]),
            ]
            for one in self._state["versions"]
        ]
        columns = ["version", self.mark, "created", "author", *self.columns, "bytes", "sha256"]
        return pd.DataFrame(rows, columns=columns).set_index("version")

    def roll_back(self, version: int) -> Self:
        """Make another version the current one; the ones after it are kept."""
        return self._change(current=version)

    def unpublish(self, *, delete: bool = False) -> None:
        """Take it away from its groups; all is kept, and `republish` brings it back.

        Parameters
        ----------
        delete : bool, default False
            Delete all its versions, and what it has stored, for good as well.
        """
        if delete:
            self._client.delete(self.name)
        else:
            self._change(hidden=True)

    def republish(self) -> Self:
        """Let its groups open it again."""
        return self._change(hidden=False)

    def _update(self, groups: Sequence[str] | None, **texts: str | None) -> Self:
        return self._change(groups=None if groups is None else list(groups), **texts)

    def _change(self, **fields: Any) -> Self:
        given = {key: value for key, value in fields.items() if value is not None}
        self._state = self._client.change(self.name, given)
        return self

    @abstractmethod
    def _version_row(self, version: Mapping[str, Any]) -> Sequence[object]:
        """Return the values of `columns` for a version."""

    @abstractmethod
    def _facts(self) -> list[tuple[str, str]]:
        """Return what a card says, by name."""

    def __repr__(self) -> str:
        return collection.lines(self.title, self._facts(), self.url)

    def _repr_html_(self) -> str:
        """Return it as HTML; every value is escaped."""
        return collection.card(self.title, self._facts(), self.url, self.link)


Item = TypeVar("Item", bound="Publication[Any]")


class Publications(collection.Collection[Item], Generic[Item]):
    """All publications of a kind that I may see, by name.

    Attributes
    ----------
    user : str
        Who I am, for the portal.
    groups : list of str
        The groups that I am in, and may publish for.
    """

    #: What the portal's list calls them, the columns of `table`, and what holds one.
    key: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, client: PublishingClient) -> None:
        self._answer = client.list_all()
        self.user = str(self._answer["user"])
        self.groups = [str(group) for group in self._answer["groups"]]
        super().__init__({one["name"]: self._item(client, one) for one in self._answer[self.key]})

    @abstractmethod
    def _item(self, client: Any, state: Mapping[str, Any]) -> Item:
        """Return what holds one."""

    @abstractmethod
    def _row(self, one: Item) -> Sequence[object]:
        """Return the values of its row."""

    def table(self) -> pd.DataFrame:
        """Return them as a table."""
        import pandas as pd

        rows = [self._row(one) for one in self]
        index = pd.Index(list(self._all), name="name")
        return pd.DataFrame(rows, columns=list(self.columns), index=index)
