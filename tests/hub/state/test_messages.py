from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from hub.state import messages
from hub.state.messages import LONGEST, MOST, MessageBoard
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from services.gate.messages import MessageFile

NOON = datetime(2026, 5, 1, 12, 0).timestamp()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "envs")


@pytest.fixture
def board(paths: Paths) -> MessageBoard:
    return MessageBoard(paths)


def test_a_message_is_shown_to_whom_it_is_for_and_its_author_stays_unknown(
    board: MessageBoard,
) -> None:
    everybody = board.add("The freezer is warm.", "root")
    imaging = board.add("Microscope 2 is free.", "root", groups=["imaging"])
    assert [one["id"] for one in board.shown([])] == [everybody.id]
    shown = board.shown(["imaging", "x"])
    assert [one["id"] for one in shown] == [imaging.id, everybody.id]
    assert set(shown[0]) == {"id", "text", "until", "begins"}


def test_a_message_ends_by_itself_or_is_taken_back(
    board: MessageBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOON]
    monkeypatch.setattr("hub.state.messages.time.time", lambda: now[0])
    board.add("short", "root", until=NOON + 60)
    stays = board.add("stays", "root")
    assert len(board.shown([])) == 2
    now[0] += 60
    assert [one["text"] for one in board.shown([])] == ["stays"]
    assert board.remove(stays.id)
    assert not board.remove(stays.id)
    assert board.shown([]) == []


def test_another_process_sees_a_change_at_its_next_look(board: MessageBoard, paths: Paths) -> None:
    gate = MessageFile(paths.state / "gate" / "messages.json")
    assert gate.shown((), time.time()) == []
    board.add("one", "root")
    assert [one["text"] for one in gate.shown((), time.time())] == ["one"]
    MessageBoard(paths).add("two", "root")
    assert [one["text"] for one in gate.shown((), time.time())] == ["two", "one"]
    assert {one["text"] for one in board.shown([])} == {"one", "two"}


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"id": "x"}]', "null", '{"a": 1}'])
def test_a_broken_file_has_no_messages_and_takes_new_ones(
    board: MessageBoard, paths: Paths, content: str
) -> None:
    (paths.state / "gate").mkdir()
    (paths.state / "gate" / "messages.json").write_text(content)
    assert board.shown([]) == []
    board.add("new", "root")
    assert [one["text"] for one in board.shown([])] == ["new"]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "is empty"),
        (" \n ", {}, "is empty"),
        ("x" * (LONGEST + 1), {}, "characters"),
        ("a\x00b", {}, "control characters"),
        ("pay \u202eevil", {}, "control characters"),
        ("x", {"until": 1.0}, "end before"),
        ("x", {"until": NOON, "begins": 4e9}, "end before"),
        ("x", {"begins": 1.0, "groups": ["imaging"]}, "everybody"),
    ],
)
def test_what_is_no_message_is_refused(
    board: MessageBoard, text: str, options: dict[str, float], says: str
) -> None:
    with pytest.raises(ProblemsError, match=says):
        board.add(text, "root", **options)  # type: ignore[arg-type]
    assert board.current() == ()


def test_there_are_not_more_than_people_read(board: MessageBoard) -> None:
    for number in range(MOST):
        board.add(f"{number}", "root")
    with pytest.raises(ProblemsError, match=f"there are {MOST} already"):
        board.add("one more", "root")
    assert len(board.current()) == MOST


def test_maintenance_begins_when_it_was_announced_for_and_administrators_still_start(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [NOON]
    monkeypatch.setattr("hub.state.messages.time.time", lambda: now[0])
    board = messages.board(paths)
    one = board.add("We update.", "root", begins=NOON + 600, until=NOON + 7200)
    assert messages.refusal(paths, admin=False) == ""
    now[0] += 600
    refusal = messages.refusal(paths, admin=False)
    assert "no new servers start until" in refusal
    assert refusal.endswith("We update.")
    assert messages.refusal(paths, admin=True) == ""
    board.remove(one.id)
    assert messages.refusal(paths, admin=False) == ""


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("18:00", datetime(2026, 5, 1, 18, 0)),
        ("9:30", datetime(2026, 5, 2, 9, 30)),
        ("12:00", datetime(2026, 5, 2, 12, 0)),
        ("2026-05-03 08:15", datetime(2026, 5, 3, 8, 15)),
        ("2026-05-03", datetime(2026, 5, 3)),
        ("2h", datetime(2026, 5, 1, 14, 0)),
        (" 2d ", datetime(2026, 5, 3, 12, 0)),
    ],
)
def test_a_time_is_named_as_people_name_it(text: str, moment: datetime) -> None:
    assert messages.parse_moment(text, NOON) == moment.timestamp()


@pytest.mark.parametrize("text", ["25:00", "tomorrow", "18", "", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        messages.parse_moment(text, NOON)
