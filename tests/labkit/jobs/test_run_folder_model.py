"""The protocol of docs/reference/run-folder.md, in every order of its steps, with each crash."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.run_folder_model import Broken, Model, explore

SITUATIONS: list[dict[str, Any]] = [
    {"crashes": 1, "takeovers": 0},
    {"crashes": 0, "takeovers": 1},
    {"crashes": 0, "takeovers": 1, "machines": 2},
]


@pytest.mark.parametrize(
    "situation", SITUATIONS, ids=["one dies", "one is frozen", "on two machines"]
)
def test_the_protocol_keeps_its_promises(situation: dict[str, Any]) -> None:
    assert 300 < explore(Model(**situation)) < 5000


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("claims before heartbeats", "tried for ever"),
        ("look for a heartbeat after the record", "run at once"),
        ("look for a record after the heartbeat", "run at once"),
        ("the epoch", "tried for ever"),
        ("a commit carries its record", "committed, and was taken for lost"),
        ("records are never replaced", "was replaced"),
    ],
)
def test_each_rule_is_needed(rule: str, what: str) -> None:
    with pytest.raises(Broken, match=what):
        for situation in SITUATIONS:
            explore(Model(without=frozenset({rule}), **situation))


def test_a_rule_of_another_name_is_no_rule() -> None:
    with pytest.raises(ValueError, match="no such rule"):
        Model(without=frozenset({"the epock"}))
