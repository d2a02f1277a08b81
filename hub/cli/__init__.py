"""The command line: one module per command, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

COMMANDS = {
    "up": ("up", "Start the portal, or put a changed lab file into force."),
    "down": ("down", "Stop the portal."),
    "restart": ("restart", "Restart the hub (or proxy, culler); user servers go on."),
    "status": ("status", "Show what runs."),
    "logs": ("logs", "Show the logs."),
    "check": ("check", "Name every problem of the lab file and this machine."),
    "doctor": ("doctor", "Look into versions, ports, disk, permissions, clock, names, apps."),
    "login": ("login", "Print a new one-time login link for an administrator."),
    "message": ("message", "Tell people something, or announce maintenance."),
    "user": ("user", "Add, remove and list the people of the portal."),
    "app": ("app", "Add, remove and list the web apps behind the login."),
    "slurm": ("slurm", "Look after the user servers' jobs on SLURM."),
    "backup": ("backup", "Save the hub's database, the secrets and the lab file."),
    "restore": ("restore", "Put a backup back."),
    "test": ("test", "Run the tests."),
    "schema": ("schema", "Print the lab file's JSON schema, for editors."),
    "render": ("render", "Print the settings in force, or what is made from them."),
    "systemd": ("systemd", "Print a systemd unit for the portal."),
}


class Commands(click.Group):
    """Imports a command's module when it is needed: `status` does not wait for `doctor`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"hub.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest command where there is none of that name."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Run a lab portal on this machine.

    The lab is described in one file, lab.yaml, in the state folder: /var/lib/labhub as
    root, else ~/.local/share/labhub (LABHUB_STATE names another).

    \b
    Examples:
      ./labhub up            start, and print the address
      ./labhub check         is the lab file right?
      ./labhub COMMAND -h    what a command does
    """  # noqa: D301


def main() -> None:
    """Run a command; exit with 0 (well), 1 (a problem, told) or 2 (wrong usage)."""
    try:
        cli.main(prog_name="labhub", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("labhub: interrupted; nothing is lost, the same command goes on", err=True)
        sys.exit(130)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        from hub.cli.common import told

        if not told(error):
            raise
        sys.exit(1)
