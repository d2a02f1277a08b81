"""service.yaml: what it accepts, what it refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.apps.declaration import Service, filled, name_problem, thumbnail_of
from hub.apps.reference import markdown
from hub.labfile.read import validated
from labkit.base.problems import ProblemsError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "service-yaml.md"
GOOD = "title: Plates\ncommand: [python, '{folder}/app.py', '{socket}']\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        validated(Service, text, "service.yaml")
    return [f"{p.where}: {p.text} {p.hint}" for p in caught.value.problems]


def test_a_small_file_is_enough() -> None:
    service = validated(Service, GOOD, "service.yaml")
    assert service.command[0] == "python"
    assert service.stops_after is not None
    assert validated(Service, GOOD + "always: true\n", "x").stops_after is None


def test_all_problems_at_once() -> None:
    found = problems_of("titel: x\ncommand: []\nmemory: lots\nidle: 5\nlisten: udp\n")
    text = "\n".join(found)
    for word in ("service.yaml:1 titel", "did you mean title?", "memory", "idle", "listen"):
        assert word in text, word
    assert len(found) >= 6


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("command: ['bin/app']", "begins with {folder}/"),
        ("command: [python, '{secret}']", "no such place: {secret}"),
        ('command: [python, "a\\nb"]', "pattern"),
        ('command: [python, "a\\0b"]', "pattern"),
        ("variables: {LD_PRELOAD: /x}", "sets LD_PRELOAD"),
        ("variables: {LABHUB_APP_SECRET: x}", "sets LABHUB_APP_SECRET"),
        ("variables: {PATH: /x}", "sets PATH"),
        ("variables: {'A=B': x}", "pattern"),
        ("thumbnail: ../../secret.png", "pattern"),
        ("thumbnail: /etc/passwd", "pattern"),
        ("health: '../x?y'", "pattern"),
        ("groups: ['a,admins']", "pattern"),
        ("always: true\nidle: 5m", "do not go together"),
        ("environment: ../x", "pattern"),
        ("user: root", "no setting"),
    ],
)
def test_refused(line: str, says: str) -> None:
    key = line.partition(":")[0]
    kept = "".join(f"{row}\n" for row in GOOD.splitlines() if not row.startswith(key))
    assert any(says in text for text in problems_of(kept + line))


@pytest.mark.parametrize("name", ["Plates", "a--b", "-a", "a_b", "../x", "a" * 23, "gate", ""])
def test_names_that_no_app_may_have(name: str) -> None:
    assert name_problem(name)


def test_a_value_is_not_read_for_places_again() -> None:
    places = {"data": "/d/{socket}", "socket": "/s"}
    assert filled(["--x={data}", "{socket}"], places) == ["--x=/d/{socket}", "/s"]


def test_a_thumbnail_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"x")
    (folder / "good.png").write_bytes(b"x")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    service = validated(Service, GOOD + "thumbnail: good.png\n", "x")
    assert thumbnail_of(service, folder) == folder / "good.png"
    linked = validated(Service, GOOD + "thumbnail: link.png\n", "x")
    assert thumbnail_of(linked, folder) is None


def test_reference_page_is_current() -> None:
    assert PAGE.read_text() == markdown(), (
        "run `./labhub schema service --markdown > docs/reference/service-yaml.md`"
    )
