"""What a person says of a thing when they publish or change it, and how it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import Field, StrictBool, StrictInt, ValidationError

from labkit.base.problems import Problem, ProblemsError
from labkit.portal.publishing.rules import Rules
from services.appkit.published.records import Frozen

_UNKNOWN = "extra_forbidden"  # pydantic's name of a key that a model does not have


class RefusedPublishError(ProblemsError):
    """It may not be published or changed, with all the reasons."""


class Statement(Frozen):
    """What is said of a published thing; None keeps what was.

    Attributes
    ----------
    groups : tuple of str or None
        Who may open it.
    title, description : str or None
        For people.
    """

    groups: tuple[str, ...] | None = None
    title: str | None = None
    description: str | None = None

    def said(self, rules: Rules) -> dict[str, Any]:
        """Return the fields of the record that it sets."""
        values = {field: getattr(self, field) for field in rules.texts}
        said: dict[str, Any] = {
            key: text.strip() for key, text in values.items() if text is not None
        }
        if self.groups is not None:
            said["groups"] = tuple(sorted(set(self.groups)))
        return said


class Change(Statement):
    """What changes of a published thing, without a new version.

    Attributes
    ----------
    current : int or None
        The version that is to be shown.
    hidden : bool or None
        Whether it is unpublished.
    """

    current: StrictInt | None = Field(None, ge=1)
    hidden: StrictBool | None = None

    def said(self, rules: Rules) -> dict[str, Any]:
        """Return the fields of the record that it sets."""
        own = {"current": self.current, "hidden": self.hidden}
        return {**super().said(rules), **{key: v for key, v in own.items() if v is not None}}


S = TypeVar("S", bound=Frozen)


def parse(model: type[S], fields: Mapping[str, Any], rules: Rules) -> S:
    """Return what is said in the body of a request.

    Parameters
    ----------
    model : type
        What it must be.
    fields : mapping of str to Any
        As it arrived.
    rules : Rules
        Of the kind.

    Raises
    ------
    RefusedPublishError
        With all that is wrong.
    """
    problems = [*rules.check_texts(fields)]
    try:
        statement = model.model_validate(fields)
    except ValidationError as error:
        named = {problem.where for problem in problems}
        problems += [one for one in _problems(error) if one.where not in named]
    if problems:
        raise RefusedPublishError(problems)
    return statement


def _problems(error: ValidationError) -> Iterator[Problem]:
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(map(str, one["loc"])) or "request"
        text = "this cannot be changed or said." if one["type"] == _UNKNOWN else f"{one['msg']}."
        yield Problem(place, text)
