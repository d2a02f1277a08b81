"""Add to JupyterHub's lists and tables: in a Kubernetes chart they are not empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue


def append(section: Config, name: str, entries: Iterable[Any]) -> None:
    """Append to a list of a configuration.

    Parameters
    ----------
    section : Config
        Such as ``c.JupyterHub``.
    name : str
        The list's name.
    entries : iterable
        What to add behind what is there.
    """
    section[name] = [*_value(section, name, []), *entries]


def update(section: Config, name: str, entries: Mapping[str, Any]) -> None:
    """Add to a table of a configuration; what is there under another name stays.

    Parameters
    ----------
    section : Config
        Such as ``c.JupyterHub``.
    name : str
        The table's name.
    entries : mapping
        What to set. A table in it is added to the one that is there.
    """
    known = dict(_value(section, name, {}))
    for key, value in entries.items():
        before = known.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            known[key] = {**before, **value}
        else:
            known[key] = value
    section[name] = known


def _value(section: Config, name: str, empty: Any) -> Any:
    value = section.get(name, empty)
    # c.JupyterHub.services.append(...) before anything was set
    return value.get_value(empty) if isinstance(value, LazyConfigValue) else value
