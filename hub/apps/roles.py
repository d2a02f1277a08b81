"""Who may open an app is exactly what is declared: JupyterHub's ``load_roles`` only adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub import orm
from jupyterhub.roles import create_role, delete_role, grant_role, strip_role
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from hub.apps.jupyterhub_services import is_ours


def before_start(db: Session, roles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Take away, before the hub starts, what is no longer declared.

    Parameters
    ----------
    db : Session
        A session on the hub's database.
    roles : sequence of mapping
        What `hubside.roles` returns.

    Returns
    -------
    list of str
        What was taken away, as ``role: holder``.
    """
    return take_away(db, roles) if inspect(db.get_bind()).has_table("roles") else []


def take_away(db: Any, roles: Sequence[Mapping[str, Any]]) -> list[str]:
    """Take apps' roles from who should not have them; delete those of apps that are gone."""
    wanted = {role["name"]: set(role.get("groups", ())) for role in roles}
    gone = []
    for role in db.query(orm.Role).all():
        if not is_ours(role.name):
            continue
        holders = [*role.groups, *role.users, *role.services]
        for holder in holders:
            if not (isinstance(holder, orm.Group) and holder.name in wanted.get(role.name, ())):
                strip_role(db, entity=holder, role=role)
                gone.append(f"{role.name}: {holder.name}")
        if role.name not in wanted:
            delete_role(db, role.name)
    db.commit()
    return gone


def give(db: Any, roles: Sequence[Mapping[str, Any]]) -> None:
    """Make the roles of a running hub what is declared."""
    take_away(db, roles)
    for spec in roles:
        role = create_role(db, {k: v for k, v in spec.items() if k != "groups"})
        for name in spec.get("groups", ()):
            group = orm.Group.find(db, name)
            if group is None:
                group = orm.Group(name=name)
                db.add(group)
                db.commit()
            grant_role(db, entity=group, role=role)
