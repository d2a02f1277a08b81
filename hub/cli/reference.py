"""The reference page of the commands, made from their own help: never out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from hub.cli import cli
from hub.state.paths import REPOSITORY

HEAD = """# Commands

What `./labhub COMMAND --help` says, in one page.

Exit codes: 0 all well, 1 a problem (told on stderr, each with what to do about it), 2 wrong usage,
130 interrupted. `status`, `check`, `doctor` and `user list` print JSON with `--json`.

| variable | |
|---|---|
| `LABHUB_STATE` | the state folder; default: /var/lib/labhub as root, else ~/.local/share/labhub |
| `LABHUB_ENVS` | the environments; default: `envs/` in the state folder. A link is used as it is |
| `LABHUB_CONFIG` | a lab file kept elsewhere, as `up --config` |

pip's, uv's and npm's own settings (files and variables) say where packages come from.
"""


def markdown() -> str:
    """Return the page ``docs/reference/cli.md``."""
    out = [HEAD]
    for context in _contexts(click.Context(cli, info_name="labhub", **cli.context_settings)):
        title = context.command_path.removeprefix("labhub").strip()
        if title:
            text = "\n".join(line.rstrip() for line in context.get_help().splitlines())
            out.append(f"\n## {title}\n\n```text\n{text}\n```\n")
    return "".join(out)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    context.max_content_width = context.terminal_width = 98
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None:
                yield from _contexts(
                    click.Context(
                        command, info_name=name, parent=context, **command.context_settings
                    )
                )


if __name__ == "__main__":
    (REPOSITORY / "docs" / "reference" / "cli.md").write_text(markdown(), encoding="utf-8")
    sys.exit()
