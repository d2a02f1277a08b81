"""``labhub systemd``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hub.cli.common import read_settings
from hub.state.paths import REPOSITORY, Paths

UNIT = """\
[Unit]
Description=Labhub, the portal of {lab}
Documentation=file://{repository}/docs/how-to/administer.md
{order}
[Service]
Type=forking
PIDFile={run}/supervisord.pid
Environment={variables}
ExecStart={repository}/labhub up
ExecReload={repository}/labhub up
Restart=on-failure
# The first start makes the environments.
TimeoutStartSec=30min
TimeoutStopSec=2min
# A stop or restart of the portal ends the supervisor and what it keeps; user servers go on,
# and the next start finds them again. `labhub down` stops them too.
KillMode=process
# User servers get cgroups of their own.
Delegate=yes
UMask=0022

[Install]
WantedBy={target}
"""

BACKUP_UNIT = """\
[Unit]
Description=Backup of Labhub, the portal of {lab}
Documentation=file://{repository}/docs/how-to/administer.md
{order}
[Service]
Type=oneshot
Environment={variables}
ExecStart={repository}/labhub backup
Nice=10
IOSchedulingClass=idle
"""

TIMER = """\
[Unit]
Description=Daily backup of Labhub, the portal of {lab}
Documentation=file://{repository}/docs/how-to/administer.md

[Timer]
OnCalendar=*-*-* 03:15
RandomizedDelaySec=15min
# A machine that was off makes it up.
Persistent=true

[Install]
WantedBy=timers.target
"""

_UNITS = {
    "portal": ("labhub.service", UNIT),
    "backup": ("labhub-backup.service", BACKUP_UNIT),
    "timer": ("labhub-backup.timer", TIMER),
}


@click.command()
@click.argument("which", type=click.Choice(list(_UNITS)), default="portal")
def systemd(which: str) -> None:
    """Print a systemd unit for this portal; on stderr, how to install it.

    WHICH: the portal itself (default), the backup, or the timer that starts it daily.

    \b
    Examples:
      sudo ./labhub systemd | sudo tee /etc/systemd/system/labhub.service
      sudo ./labhub systemd timer | sudo tee /etc/systemd/system/labhub-backup.timer
    """  # noqa: D301
    paths = Paths.from_environment()
    lab = read_settings(paths).lab.name if paths.lab_file.exists() else "the lab"
    click.echo(unit(paths, lab, which=which), nl=False)
    sys.stdout.flush()
    if which != "portal":
        steps: tuple[str, ...] = _backup_steps()
    elif os.geteuid() == 0:
        steps = (
            "./labhub systemd > /etc/systemd/system/labhub.service",
            "./labhub down --keep-servers",
            "systemctl daemon-reload",
            "systemctl enable --now labhub",
        )
    else:
        steps = (
            "mkdir -p ~/.config/systemd/user",
            "./labhub systemd > ~/.config/systemd/user/labhub.service",
            "./labhub down --keep-servers",
            "systemctl --user daemon-reload",
            "systemctl --user enable --now labhub",
            "loginctl enable-linger    # also while you are not logged in",
        )
    click.echo("\n# To install it:\n" + "\n".join(f"#   {step}" for step in steps), err=True)


def _backup_steps() -> tuple[str, ...]:
    root = os.geteuid() == 0
    folder, user = ("/etc/systemd/system", "") if root else ("~/.config/systemd/user", " --user")
    files = (
        f"./labhub systemd {name} > {folder}/{_UNITS[name][0]}" for name in ("backup", "timer")
    )
    return (
        *files,
        f"systemctl{user} daemon-reload",
        f"systemctl{user} enable --now {_UNITS['timer'][0]}",
    )


def unit(paths: Paths, lab: str, repository: Path = REPOSITORY, which: str = "portal") -> str:
    """Return the unit's text.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    lab : str
        The lab's name.
    repository : Path
        Where `labhub` is.
    which : str
        ``portal``, ``backup`` or ``timer``.
    """
    root = os.geteuid() == 0
    variables = {"LABHUB_STATE": paths.state}
    # Where they are is said by the lab file, or is the state folder; a unit keeps no copy of it.
    if os.environ.get("LABHUB_ENVS") and paths.envs != _by_itself(paths):
        variables["LABHUB_ENVS"] = paths.envs
    if conf := os.environ.get("SLURM_CONF"):
        variables["SLURM_CONF"] = Path(conf)
    order = "After=network-online.target nss-user-lookup.target\nWants=network-online.target\n"
    return _UNITS[which][1].format(
        lab="".join(c if c.isalnum() or c in " -_.,'" else " " for c in lab),
        repository=_escaped(repository),
        run=_escaped(paths.run),
        variables=" ".join(f'"{key}={_escaped(path)}"' for key, path in variables.items()),
        order=order if root else "",
        target="multi-user.target" if root else "default.target",
    )


def _by_itself(paths: Paths) -> Path:
    """Return where the environments are for a command without LABHUB_ENVS."""
    link = paths.state / "envs"
    return paths.state / link.readlink() if link.is_symlink() else link


def _escaped(path: Path) -> str:
    # systemd reads % as a specifier; spaces are not allowed by `supervise.render` to matter
    # in PIDFile and Exec lines, so they are escaped as it asks for.
    return str(path).replace("%", "%%").replace(" ", "\\x20")
