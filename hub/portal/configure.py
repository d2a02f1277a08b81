"""Turn the lab file into JupyterHub's configuration: one function per concern.

Each function only sets what it owns. Where JupyterHub has one list for several
concerns (handlers, services, roles), each concern returns its part and the lists are
joined here.
"""

from __future__ import annotations

import contextlib
import os

from sqlalchemy.exc import OperationalError, ProgrammingError
from traitlets.config import Config

from hub import auth, targets
from hub.apps import handlers as apps
from hub.apps import jupyterhub_services
from hub.apps import roles as rights
from hub.apps.members import handlers as webapps
from hub.labfile.addresses import PortalAddresses
from hub.labfile.schema import Settings
from hub.portal import (
    audit,
    control,
    culling,
    groups,
    limits,
    messages,
    pages,
    roles,
    unavailable,
)
from hub.portal.merge import append, update
from hub.state import create, secrets
from hub.state.database import HubDatabase
from hub.state.paths import Paths
from hub.targets import Target


def configure(c: Config, settings: Settings, paths: Paths) -> None:
    """Set everything that the portal sets in JupyterHub.

    Parameters
    ----------
    c : Config
        JupyterHub's configuration object.
    settings : Settings
        The validated lab file.
    paths : Paths
        Where the portal keeps its state.
    """
    target = targets.of(settings, paths)
    _server(c, settings, paths, target.addresses)
    _proxy(c, settings, target.addresses)
    _people(c, settings)
    auth.configure(c, settings, paths, as_one_account=target.as_one_account)
    _spawner(c, settings, paths, target)
    target.configure(c)
    culling.configure(c, settings, paths)
    pages.configure(c, settings, paths)
    limits.configure(c)
    audit.configure(c, paths)
    hub = c.JupyterHub
    update(hub, "template_vars", auth.template_vars(settings))
    update(hub, "template_vars", target.template_vars())
    update(hub, "template_vars", messages.template_vars(paths))
    handlers = [
        *auth.handlers(settings, paths),
        *pages.handlers(settings, paths),
        *messages.handlers(settings, paths),
        *target.handlers(),
        *apps.handlers(settings, paths, target.app_runtime, target.addresses.gate_url),
        *webapps.handlers(settings, paths, target.app_runtime, target.addresses.gate_url),
    ]
    append(hub, "extra_handlers", handlers)
    custom_scopes = {
        jupyterhub_services.SYNC: {"description": "Let the hub take up changed apps"},
        jupyterhub_services.PUBLISH: {"description": "Publish and change one's own web apps"},
    }
    update(hub, "custom_scopes", custom_scopes)
    services = [
        *culling.services(settings, paths),
        *control.services(),
        *jupyterhub_services.services(settings, paths, target.addresses.gate_url),
    ]
    append(hub, "services", services)
    append(hub, "load_roles", roles.load_roles(settings, paths))


def before_start(settings: Settings, paths: Paths) -> None:
    """Take away what the files no longer give; giving is JupyterHub's own work at its start."""
    database = HubDatabase.of(settings, paths)
    database.use_write_ahead_log()
    unavailable.install()
    if not database.exists():
        return
    # A database of an older JupyterHub: the hub itself says so, and does not start.
    with contextlib.suppress(OperationalError, ProgrammingError), database.session() as db:
        groups.follow_lab_file(db, settings.groups)
        rights.before_start(db, jupyterhub_services.roles(settings, paths))


def _server(c: Config, settings: Settings, paths: Paths, addresses: PortalAddresses) -> None:
    c.JupyterHub.hub_bind_url = addresses.hub_bind
    if addresses.hub_connect:
        c.JupyterHub.hub_connect_url = addresses.hub_connect
    c.JupyterHub.db_url = HubDatabase.of(settings, paths).for_hub(paths.run)
    _cookie_secret(c, settings, paths)
    c.JupyterHub.pid_file = str(paths.run / "hub.pid")
    # A restart of the hub or the proxy leaves the running servers alone.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.authenticate_prometheus = True
    secure = settings.parts.scheme == "https"
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
    # With an origin for each person and app no cookie of another one's can pass for the hub's.
    # On one origin the name would carry them to every server: they would lose their path.
    c.JupyterHub.cookie_host_prefix_enabled = secure and settings.isolation == "subdomain"
    if secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    cookie_options = {"samesite": "Lax", "secure": secure}
    tornado_settings = {"headers": headers, "cookie_options": cookie_options}
    update(c.JupyterHub, "tornado_settings", tornado_settings)


def _cookie_secret(c: Config, settings: Settings, paths: Paths) -> None:
    place = secrets.place(paths, "cookie_secret", settings.secrets.mounted)
    if place.parent == paths.secrets:
        c.JupyterHub.cookie_secret_file = str(place)
    else:  # JupyterHub refuses a file that a group can read
        text = create.read_secret(paths, "cookie_secret", settings.secrets.mounted)
        c.JupyterHub.cookie_secret = bytes.fromhex(text)


def _proxy(c: Config, settings: Settings, addresses: PortalAddresses) -> None:
    host, port = settings.bind
    scheme = settings.parts.scheme if settings.tls else "http"
    c.JupyterHub.bind_url = f"{scheme}://{host}:{port}"
    c.JupyterHub.public_url = settings.url
    if settings.isolation == "subdomain":
        c.JupyterHub.subdomain_host = settings.url
    # The proxy is a process of its own, so that it outlives the hub.
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = addresses.proxy_api_url
    c.ConfigurableHTTPProxy.auth_token = os.environ.get("CONFIGPROXY_AUTH_TOKEN", "")


def _people(c: Config, settings: Settings) -> None:
    c.Authenticator.admin_users = set(settings.admins)
    of_lab_file = {
        name: {"users": list(members), "properties": groups.SOURCE}
        for name, members in settings.groups.items()
    }
    update(c.JupyterHub, "load_groups", of_lab_file)


def _spawner(c: Config, settings: Settings, paths: Paths, target: Target) -> None:
    c.JupyterHub.spawner_class = target.spawner_class
    c.LabSpawner.settings = settings
    c.LabSpawner.paths = paths
    c.JupyterHub.allow_named_servers = settings.named_servers > 0
    c.JupyterHub.named_server_limit_per_user = settings.named_servers
    c.JupyterHub.active_server_limit = settings.local.max_servers
    c.Spawner.server_token_scopes = jupyterhub_services.SERVER_SCOPES
    c.Spawner.start_timeout = 120
    c.Spawner.http_timeout = 60
    c.Spawner.poll_interval = 10
