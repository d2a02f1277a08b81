"""Groups of the lab file are exactly what the lab file says.

JupyterHub's ``load_groups`` only adds: a person taken out of a group in the file would
stay in it for ever. Groups made on the admin page are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jupyterhub import orm
from sqlalchemy import inspect
from sqlalchemy.orm import Session

SOURCE = {"source": "lab file"}


def follow_lab_file(db: Session, groups: Mapping[str, Collection[str]]) -> list[str]:
    """Take people out of the groups that the lab file no longer puts them into.

    Run before the hub starts; adding people is JupyterHub's own work.

    Parameters
    ----------
    db : Session
        A session on the hub's database.
    groups : mapping of str to collection of str
        The lab file's groups and their members.

    Returns
    -------
    list of str
        What was taken away, as ``group: user``.
    """
    if not inspect(db.get_bind()).has_table("groups"):
        return []
    gone = []
    for group in db.query(orm.Group):
        if group.name not in groups and (group.properties or {}) != SOURCE:
            continue
        members = groups.get(group.name, ())
        for user in [u for u in group.users if u.name not in members]:
            group.users.remove(user)
            gone.append(f"{group.name}: {user.name}")
    db.commit()
    return gone
