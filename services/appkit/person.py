"""Who asks one of the portal's apps, or the hub about one."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Person:
    """Somebody whom the hub has let in.

    Attributes
    ----------
    name : str
        The hub's name; empty: the administrator of the machine, at its command line.
    groups : frozenset of str
        The hub's groups.
    admin : bool
        Whether the person is an administrator.
    """

    name: str
    groups: frozenset[str] = field(default_factory=frozenset)
    admin: bool = False
