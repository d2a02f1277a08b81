"""The lab file: what it accepts, what it refuses, and how it says so."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.labfile.read import json_schema, parse, read
from hub.labfile.reference import markdown
from labkit.base.problems import ProblemsError

CONFIG = Path(__file__).resolve().parents[3] / "config"
DOCS = CONFIG.parent / "docs"


def problems_of(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ProblemsError) as caught:
        parse(text)
    return [(p.where, p.text, p.hint) for p in caught.value.problems]


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda p: p.name)
def test_examples_are_valid(path: Path) -> None:
    settings = read(path)
    targets = {
        "lab.slurm.yaml": "slurm",
        "lab.parallelcluster.yaml": "slurm",
        "lab.eks.yaml": "eks",
    }
    assert settings.target == targets.get(path.name, "local")


def test_example_shows_the_defaults() -> None:
    """What lab.yaml comments out as a default is the default."""
    settings, empty = read(CONFIG / "lab.yaml"), parse("")
    for section in ("storage", "local", "named_servers", "isolation", "url"):
        assert getattr(settings, section) == getattr(empty, section)
    assert settings.culling == empty.culling


def test_schema_file_is_current() -> None:
    assert (CONFIG / "lab.schema.json").read_text() == json_schema(), (
        "run `./labhub schema > config/lab.schema.json`"
    )


def test_reference_page_is_current() -> None:
    assert (DOCS / "reference" / "lab-file.md").read_text() == markdown(), (
        "run `./labhub schema --markdown > docs/reference/lab-file.md`"
    )


def test_all_problems_at_once_with_line_and_hint() -> None:
    found = problems_of(
        "url: ftp://x\n"
        "targt: local\n"
        "profiles:\n"
        "  - name: A b\n"
        "    title: x\n"
        "    memmory: 2\n"
        "  - {name: b, title: B, memory: lots, cpu: -1}\n"
        "culling: {idle: 30}\n"
        "local: {allow_networks: [192.168.1.0/33]}\n"
    )
    places = [place for place, _, _ in found]
    assert places == [
        "lab.yaml:1 url",
        "lab.yaml:4 profiles.0.name",
        "lab.yaml:6 profiles.0.memmory",
        "lab.yaml:7 profiles.1.cpu",
        "lab.yaml:7 profiles.1.memory",
        "lab.yaml:8 culling.idle",
        "lab.yaml:9 local.allow_networks.0",
        "lab.yaml:2 targt",
    ]
    assert ("lab.yaml:2 targt", "targt is no setting", "did you mean target?") in found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("url: http://lab.example.org", "clear"),
        ("url: http://127.0.0.1:8000", "host name"),
        ("url: https://lab.example.org/portal", "end after the host"),
        ("target: slurm", "section slurm"),
        ("target: eks", "section eks"),
        ("tls: {certificate: /a, key: /b}", "https://"),
        ("authentication: {method: oidc}", "authentication.oauth"),
        (
            "authentication: {method: github, oauth: {client_id: x}}",
            "nobody would be let in",
        ),
        (
            "authentication: {method: pam, oauth: {client_id: x, allow_all: true}}",
            "does not use",
        ),
        ("profiles: []", "at least one"),
        ("profiles: [{name: a, title: A}, {name: a, title: B}]", "same name"),
        ("profiles: [{name: a, title: A, groups: [nobody]}]", "do not exist: nobody"),
        ("storage: {shared: [{path: /etc}]}", "system folder"),
        ("storage: {shared: [{path: ../x}]}", "absolute"),
        ("apps: [{name: x, title: X, url: 'javascript:alert(1)'}]", "web address"),
        ("admins: ['$(id)']", "pattern"),
        ("- a list", "key: value"),
        ("lab: {name: [", "expected"),
    ],
)
def test_refused(text: str, says: str) -> None:
    found = problems_of(text)
    assert any(says in text for _, text, _ in found), found


def test_settings_are_frozen() -> None:
    settings = parse("")
    with pytest.raises(ValidationError):
        settings.lab.name = "other"  # type: ignore[misc]


def test_unreadable_file_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match="cannot be read"):
        read(tmp_path / "nothing.yaml")


def test_durations() -> None:
    assert parse("culling: {idle: 90m}").culling.idle == timedelta(minutes=90)
    assert parse("culling: {idle: null}").culling.idle is None
