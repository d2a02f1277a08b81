"""Who may open an app is exactly what is declared: JupyterHub's ``load_roles`` only adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub import orm
from jupyterhub.roles import (
    create_role,
    delete_role,
    get_roles_for,
    grant_role,
    roles_to_scopes,
    strip_role,
)
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from hub.apps.jupyterhub_services import PUBLISH, is_ours

_APPS = "access:services"


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


def give_to_servers(db: Any) -> None:
    """Let the tokens of running servers open the apps that their owners may open now.

    JupyterHub writes into a server's token, when the server starts, which apps its owner may open.
    Without this an app that is added later refuses the token until that server is started anew.

    Parameters
    ----------
    db : Session
        A session on the hub's database.
    """
    for token in db.query(orm.APIToken).filter(orm.APIToken.note.startswith("Server at ")).all():
        if token.user is None or not _is_of_server(token):
            continue
        own = roles_to_scopes(get_roles_for(token.user))
        others = {name for name in token.scopes if not _opens_apps(name)}
        token.scopes = sorted(others | {name for name in own if _opens_apps(name)})
    db.commit()


def _opens_apps(name: str) -> bool:
    return name == _APPS or name.startswith(f"{_APPS}!service=")


def _is_of_server(token: orm.APIToken) -> bool:
    """Return whether a token has what a server's is given: its note is anybody's to choose."""
    servers = {
        f"access:servers!server={token.user.name}/{spawner.name}"
        for spawner in token.user.orm_spawners.values()
        if spawner.server is not None
    }
    return PUBLISH in token.scopes and not servers.isdisjoint(token.scopes)
