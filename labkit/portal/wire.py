"""How a refusal travels from the portal to a notebook: JSON that names all problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from labkit.base.problems import Problem


def refusal(problems: Iterable[Problem]) -> dict[str, Any]:
    """Return the body of an answer that names all problems."""
    body = [{"where": one.where, "text": one.text, "hint": one.hint} for one in problems]
    message = "; ".join(f"{one['where']}: {one['text']}" for one in body)
    return {"message": message, "problems": body}


def problems(body: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return the problems that an answer's body names, which may be anybody's JSON."""
    return tuple(
        Problem(str(one.get("where", "")), str(one.get("text", "")), str(one.get("hint", "")))
        for one in body.get("problems", ())
        if isinstance(one, dict)
    )
