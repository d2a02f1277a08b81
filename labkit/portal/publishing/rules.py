"""What may be published: names, texts and groups. One list for the notebook and the portal.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.base.problems import Problem

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
GROUPS_MOST = 50


@dataclass(frozen=True)
class Text:
    """What a text may be.

    Attributes
    ----------
    most : int
        Its longest, in characters.
    multiline : bool
        It may have line breaks and tabs.
    needed : bool
        It may not be blank.
    """

    most: int
    multiline: bool = False
    needed: bool = False

    def check(self, field: str, value: Any) -> Iterator[Problem]:
        """Yield what is wrong with a value; None is nothing said."""
        if value is None:
            return
        kind = "a text" if self.multiline else "one line"
        fits = isinstance(value, str) and len(value) <= self.most
        if not fits or not (self.multiline or value.isprintable()):
            yield Problem(field, f"{kind} of at most {self.most} characters is needed.")
        elif not all(letter.isprintable() or letter in "\n\t" for letter in value):
            yield Problem(field, "it has characters that cannot be shown.")
        elif self.needed and not value.strip():
            yield Problem(field, "it is empty.")


@dataclass(frozen=True)
class Rules:
    """What publications of one kind may be called and say.

    Attributes
    ----------
    noun : str
        What one is called, with its article: ``"a dataset"``.
    name : re.Pattern
        Of the name in its address.
    name_most : int
        Characters that a name may have.
    name_rule : str
        The same for people; follows "A name has".
    texts : mapping of str to Text
        The fields that people write.
    needs_group : bool
        One that is for no group at all is refused.
    versions_most : int or None
        Versions that one may have; None sets no limit.
    """

    noun: str
    name: re.Pattern[str]
    name_most: int
    name_rule: str
    texts: Mapping[str, Text]
    needs_group: bool = False
    versions_most: int | None = None

    def is_name(self, value: Any) -> bool:
        """Return whether a value may be the name of one."""
        return (
            isinstance(value, str)
            and len(value) <= self.name_most
            and self.name.fullmatch(value) is not None
        )

    def check_name(self, name: Any) -> Iterator[Problem]:
        """Yield what is wrong with a name."""
        if not self.is_name(name):
            hint = f"A name has {self.name_rule}."
            yield Problem("name", f"{name!r} is no name of {self.noun}.", hint)

    def check_texts(self, fields: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what is wrong with the texts among some fields."""
        for field, text in self.texts.items():
            yield from text.check(field, fields.get(field))

    def check_groups(
        self, groups: Any, own: Collection[str], *, admin: bool, kept: Iterable[str] = ()
    ) -> Iterator[Problem]:
        """Yield what is wrong with the groups that something is for.

        Parameters
        ----------
        groups : Any
            What was requested.
        own : collection of str
            The groups of who asks.
        admin : bool
            Whether an administrator asks, who may name any group.
        kept : iterable of str
            Groups that it is for already: they may stay.
        """
        if not isinstance(groups, list | tuple) or not all(is_group(one) for one in groups):
            hint = 'E.g. groups=["imaging"].'
            yield Problem("groups", "a list of names of groups is needed.", hint)
            return
        if len(groups) > GROUPS_MOST:
            yield Problem("groups", f"there are more than {GROUPS_MOST}.")
        mine = ", ".join(sorted(own)) or "none"
        foreign = sorted(set(groups) - set(own) - set(kept))
        if foreign and not admin:
            hint = f"Yours are: {mine}. An administrator can add you, or share it for you."
            yield Problem("groups", f"you are not in: {', '.join(foreign)}.", hint)
        if self.needs_group and not groups:
            hint = "You may name any group." if admin else f"Yours are: {mine}."
            yield Problem("groups", "at least one group is needed.", hint)

    def check_request(self, name: Any, fields: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with a request before the portal is reached.

        Parameters
        ----------
        name : Any
            Under which it is to be published.
        fields : mapping of str to Any
            Texts, and ``groups``.
        """
        problems = [*self.check_name(name), *self.check_texts(fields)]
        groups = fields.get("groups")
        if isinstance(groups, str):  # a sequence of letters, for Python
            problems.append(Problem("groups", "a list is needed.", f"groups=[{groups!r}]"))
        return problems


def is_group(value: Any) -> bool:
    """Return whether a value may be the name of a group: the hub separates them by commas."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 128
        and value == value.strip()
        and value.isprintable()
        and "," not in value
    )
