"""A command line with placeholders: split into arguments first, filled in afterwards."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from labkit.base.problems import Problem, unknown_name
from labkit.base.remote import local_name
from labkit.jobs.model import PLACEHOLDERS, literal

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]*")
_SHELL_WORDS = {">", ">>", "<", "|", "||", "&", "&&", ";", "2>", "2>&1", "&>"}


class TemplateError(ValueError):
    """The template cannot be read; the text says why."""


class RemoteFile(str):
    """An address in S3; the program is given the path of the copy that is fetched for it."""

    __slots__ = ()

    @property
    def template(self) -> str:
        """The path, as a task's ``argv`` has it."""
        return f"${{tmp}}/{literal(local_name(self))}"

    @property
    def variable(self) -> str:
        """The variable in which a shell finds the path."""
        return _variable(f"input_{hashlib.sha256(self.encode()).hexdigest()[:12]}")


def text_of(value: Any) -> str:
    """Return a value as a task's ``argv`` has it."""
    return value.template if isinstance(value, RemoteFile) else literal(value)


@dataclass(frozen=True)
class Template:
    """A command line over the columns of a table.

    Attributes
    ----------
    text : str
        As people write it: ``fastqc {reads} -o {out}``; ``{{`` is a brace.
    shell : bool
        Whether bash runs it. Else it is split into words here, and each value stays one argument
        whatever it holds.
    """

    text: str
    shell: bool = False

    @property
    def names(self) -> set[str]:
        """Names in braces.

        Raises
        ------
        TemplateError
            The braces cannot be read.
        """
        return {name for _, name in _parse(self.text) if name is not None}

    def problems(self, columns: Mapping[str, Any] | set[str]) -> list[Problem]:
        """Return what is wrong with it, given the columns of the table."""
        try:
            names = self.names
            words = [self.text] if self.shell else _split(self.text)
        except TemplateError as error:
            return [Problem("command", f"{error}.")]
        if not words or not words[0].strip():
            return [Problem("command", "is empty.")]
        texts = [
            unknown_name("column", name, {*columns, *PLACEHOLDERS})
            for name in sorted(names)
            if name not in columns and name not in PLACEHOLDERS
        ]
        texts += [
            Problem(
                name,
                "is a column, and a word that labkit fills in itself.",
                f"Rename the column; {{{name}}} is the {PLACEHOLDERS[name]}.",
            )
            for name in sorted(names & set(columns) & set(PLACEHOLDERS))
        ]
        if self.shell:
            texts += [
                Problem(
                    name,
                    "stands in quotes.",
                    f"Write {{{name}}} without quotes: labkit quotes each value itself.",
                )
                for name in _quoted(self.text)
            ]
        else:
            texts += [
                Problem(
                    "command",
                    f"{word!r} would be handed to the program as text: no shell runs it.",
                    "Say shell=True if you need one.",
                )
                for word in words
                if word in _SHELL_WORDS or (word.endswith(";") and len(word) > 1)
            ]
        return texts

    def argv(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the arguments for one row, as a task's ``argv``."""
        if self.shell:
            script = "".join(
                literal(text) + ("" if name is None else self._in_shell(name, row))
                for text, name in _parse(self.text)
            )
            return ("bash", "-euo", "pipefail", "-c", script)
        argv: list[str] = []
        for word in _split(self.text):
            parts = _parse(word)
            name = parts[0][1]
            value = row.get(name) if name is not None else None
            if len(parts) == 1 and not parts[0][0] and isinstance(value, list | tuple):
                argv += [text_of(item) for item in value]  # several files of one sample
            else:
                argv.append(_fill(parts, row))
        return tuple(argv)

    def env(self) -> dict[str, str]:
        """Return the variables that a shell reads labkit's own values from."""
        if not self.shell:
            return {}
        return {_variable(name): f"${{{name}}}" for name in sorted(self.names & set(PLACEHOLDERS))}

    def _in_shell(self, name: str, row: Mapping[str, Any]) -> str:
        if name in row:
            value = row[name]
            items = value if isinstance(value, list | tuple) else [value]
            return literal(" ".join(map(_quoted_value, items)))
        return literal(f'"${_variable(name)}"')


def fill(text: str, row: Mapping[str, Any]) -> str:
    """Return one text with its placeholders filled in, for a task's ``inputs`` and ``outputs``."""
    return _fill(_parse(text), row)


def _fill(parts: list[tuple[str, str | None]], row: Mapping[str, Any]) -> str:
    filled = ""
    for text, name in parts:
        filled += literal(text)
        if name is None:
            continue
        filled += text_of(row[name]) if name in row else f"${{{name}}}"
    return filled


@lru_cache(maxsize=256)  # the same few words for 10,000 rows
def _parse(text: str) -> list[tuple[str, str | None]]:
    """Return (text before, name) pairs.

    Raises
    ------
    TemplateError
        The braces cannot be read.
    """
    parts: list[tuple[str, str | None]] = []
    try:
        for before, name, form, conversion in Formatter().parse(text):
            if name is not None and (form or conversion or not _COLUMN.fullmatch(name)):
                raise TemplateError(f"{{{name}}} is no name of a column; write {{{{ for a brace")
            parts.append((before, name))
    except TemplateError:
        raise
    except ValueError as error:
        raise TemplateError(f"braces: {error}; write {{{{ for a brace") from error
    return parts or [("", None)]


@lru_cache(maxsize=16)
def _split(text: str) -> list[str]:
    try:
        # A column's name may hold spaces: a name in braces is one word.
        guarded = re.sub(r"\{[^{}]*\}", lambda match: match[0].replace(" ", "\0"), text)
        return [word.replace("\0", " ") for word in shlex.split(guarded)]
    except ValueError as error:
        raise TemplateError(f"quotes: {error}") from error


def _quoted(text: str) -> list[str]:
    """Return the names that stand inside of quotes."""
    parts = []
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and quote != "'":
            position += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        if char == "{" and quote and (match := re.match(r"\{([^{}]+)\}", text[position:])):
            parts.append(match[1])
        position += 1
    return parts


def _quoted_value(value: Any) -> str:
    if isinstance(value, RemoteFile):
        return f'"${value.variable}"'
    return shlex.quote(str(value))


def _variable(name: str) -> str:
    return f"labkit_{name}"
