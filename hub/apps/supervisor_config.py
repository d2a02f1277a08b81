"""The apps as the supervisor's programs: one section of its configuration each."""

from __future__ import annotations

from hub.apps import catalogue
from hub.apps.app_paths import KEY
from hub.apps.catalogue import App
from hub.environments.build import STAMP
from hub.labfile.schema import Settings
from hub.state import secrets
from hub.state.paths import REPOSITORY, Paths
from hub.supervisor.programs import ages, content, digest, program_name, section

# An app that ends is started again by who asks for it next: one that cannot run costs nothing.
_ON_DEMAND = {"autostart": "false", "autorestart": "false", "startsecs": "0"}
_ALWAYS = {"autostart": "true", "autorestart": "true", "startsecs": "10", "startretries": "20"}
_CODE = frozenset({".py", ".R", ".html", ".css", ".js", ".svg"})  # what an app is given to read


def programs(settings: Settings, paths: Paths) -> dict[str, dict[str, str]]:
    """Return the apps as the supervisor's programs: name -> its section of the configuration."""
    sections = {}
    for app in catalogue.read(settings, paths)[0]:
        name = program_name(app.name)
        made_from = _digest(app, settings, paths)
        sections[name] = {
            **section(name, ["hub.apps.launch", app.name], made_from, paths),
            "priority": "500",
            **(_ALWAYS if app.service.always else _ON_DEMAND),
            "stdout_logfile_maxbytes": "5MB",
            "stdout_logfile_backups": "2",
        }
    return sections


def _digest(app: App, settings: Settings, paths: Paths) -> str:
    """Return one digest over all that an app is made from."""
    parts = [app.service.model_dump_json(), app.url(settings), settings.storage.model_dump_json()]
    parts += content([paths.envs / app.service.environment / STAMP])
    parts += ages([secrets.place(paths, KEY, settings.secrets.mounted)])
    code = (p for p in app.folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
    parts += ages(sorted(code))
    given = ["labkit", "services/appkit", *(["services/member_apps"] if app.kind else [])]
    code = (p for name in given for p in (REPOSITORY / name).rglob("*.*"))
    parts += ages(sorted(p for p in code if p.suffix in _CODE))
    return digest(parts)
