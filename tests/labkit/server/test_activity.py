"""Holds, keep-until and what they mean for the last activity, without a server."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.base import activity as busy
from labkit.server.activity import SETTING, Activity, Rules
from labkit.server.cull_exemption import CullExemption

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "labkit"


class Kernels(dict[str, Any]):
    last_kernel_activity = datetime.fromtimestamp(NOW - 9000, UTC)

    def list_kernel_ids(self) -> list[str]:
        return list(self)

    def get_kernel(self, kernel_id: str) -> Any:
        return self[kernel_id]


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def activity(clock: Clock, *, idle: float = 7200, max_age: float = 0, **kernels: str) -> Activity:
    running = Kernels(
        {
            name: SimpleNamespace(execution_state=state, kernel_name="python3", last_activity=None)
            for name, state in kernels.items()
        }
    )
    settings: dict[str, Any] = {
        "kernel_manager": running,
        "started": datetime.fromtimestamp(NOW - 10_000, UTC),
        "last_activity_times": {},
    }
    return Activity(settings, CullExemption("", 86400, clock), Rules(idle, max_age), clock)


def seen(one: Activity) -> float | None:
    value = one._settings.get(SETTING)
    return value.timestamp() if value else None


# -- holds -----------------------------------------------------------------------------


def test_a_hold_lasts_as_long_as_its_block() -> None:
    with busy.hold("copying\n the   plate"):
        assert [one.reason for one in busy.holds()] == ["copying the plate"]
        with busy.hold("another"):
            assert len(busy.holds()) == 2
    assert busy.holds() == []


def test_a_hold_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), busy.hold("dividing"):
        raise ZeroDivisionError
    assert busy.holds() == []


def test_a_hold_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="say what is going on"), busy.hold(" "):
        pass


def test_a_killed_process_holds_nothing(home: Path) -> None:
    code = (
        "import time, labkit.base.activity\n"
        "with labkit.base.activity.hold('x'):\n    print(1, flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ}
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert len(busy.holds()) == 1
    child.kill()
    child.wait()
    assert busy.holds() == []


def test_a_forked_child_does_not_end_the_hold() -> None:
    with busy.hold("the parent's"):
        context = multiprocessing.get_context("fork")
        child = context.Process(target=sys.exit)
        child.start()
        child.join()
        assert len(busy.holds()) == 1


def test_another_process_with_the_same_id_holds_nothing(home: Path) -> None:
    with busy.hold("x"):
        (path,) = (home / "busy").glob("*.json")
        fields = json.loads(path.read_text())
        fields["created"] -= 1000
        path.write_text(json.dumps(fields))
        assert busy.holds() == []


def test_a_hold_of_another_machine_does_not_hold_this_server(home: Path) -> None:
    with busy.hold("x"):
        (path,) = (home / "busy").glob("*.json")
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, "place": "elsewhere:1"}))
        assert busy.holds() == []
        assert path.exists()  # it may be running there


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 10, b"{" * 100_000, b"null"],
)
def test_nonsense_in_the_folder_is_no_hold(home: Path, content: bytes) -> None:
    (home / "busy").mkdir(parents=True)
    path = home / "busy" / "1-x.json"
    path.write_bytes(content)
    os.utime(path, (time.time() - 60,) * 2)
    assert busy.holds() == []
    assert not path.exists()


def test_work_goes_on_where_the_hold_cannot_be_written(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    (home / "busy").write_text("a file in the way")
    with busy.hold("x"):
        done = True
    assert done
    assert "cannot hold the server" in capsys.readouterr().err


# -- keep until ------------------------------------------------------------------------


def test_keep_is_each_servers_own() -> None:
    clock = Clock()
    first, second = CullExemption("", 86400, clock), CullExemption("other", 86400, clock)
    first.set(3600)
    assert first.until == NOW + 3600
    assert second.until is None
    second.set(7200)
    first.clear()
    assert (first.until, second.until) == (None, NOW + 7200)
    clock.now += 7201
    assert second.until is None


def test_keep_is_bounded_however_it_was_written(home: Path) -> None:
    keep = CullExemption("", 3600, Clock())
    with pytest.raises(ValueError, match="at most 1 h"):
        keep.set(3601)
    home.mkdir(exist_ok=True)
    (home / "keep-until.json").write_text(json.dumps({"servers": {"": NOW + 10**9}}))
    assert keep.until == NOW + 3600


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"servers": []}', '{"servers": {"": "x"}}'])
def test_nonsense_keeps_nothing(home: Path, content: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "keep-until.json").write_text(content)
    keep = CullExemption("", 3600, Clock())
    assert keep.until is None
    keep.set(60)
    assert keep.until == NOW + 60


# -- activity --------------------------------------------------------------------------


def test_an_idle_server_gets_no_younger() -> None:
    one = activity(Clock(), a="idle", b="starting", c="dead")
    one.look()
    assert seen(one) is None
    assert one.last() == NOW - 9000
    assert one.stops() == NOW - 9000 + 7200


def test_a_busy_kernel_is_activity() -> None:
    clock = Clock()
    one = activity(clock, a="idle", b="busy")
    one.look()
    assert seen(one) == NOW
    clock.now += 5000
    assert one.stops() == clock.now + 7200
    one._settings["kernel_manager"]["b"].execution_state = "idle"
    one.look()
    assert seen(one) == NOW  # of the last look at which it was busy
    assert one.stops() == NOW + 7200


def test_a_hold_is_activity() -> None:
    one = activity(Clock())
    with busy.hold("x"):
        one.look()
    assert seen(one) == NOW


def test_keep_ends_the_server_when_the_user_said() -> None:
    clock = Clock()
    one = activity(clock)
    one.keep.set(4 * 3600)
    one.look()
    assert seen(one) == NOW
    assert one.stops() == NOW + 4 * 3600
    clock.now = NOW + 4 * 3600 - 10
    one.look()
    # An idle time of 2 h later, from here, is the moment that was asked for.
    assert seen(one) == NOW + 2 * 3600
    assert one.last() + one.rules.idle == NOW + 4 * 3600


def test_letting_go_takes_nothing_back_that_was_told() -> None:
    one = activity(Clock())
    one.keep.set(4 * 3600)
    one.look()
    one.keep.clear()
    one.look()
    assert seen(one) == NOW


def test_a_server_has_an_oldest_age_whatever_is_kept() -> None:
    one = activity(Clock(), max_age=12_000)
    one.keep.set(86400)
    assert one.stops() == NOW - 10_000 + 12_000


def test_never_is_never() -> None:
    assert activity(Clock(), idle=0).stops() is None


def test_the_portals_rules_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABHUB_CULL_IDLE_SECONDS", "600")
    monkeypatch.setenv("LABHUB_MAX_AGE_SECONDS", "nonsense")
    monkeypatch.setenv("JUPYTERHUB_ACTIVITY_INTERVAL", "60")
    assert Rules.from_environment() == Rules(idle=600, max_age=0, report=60)
    monkeypatch.setenv("LABHUB_KEEP_MAX_SECONDS", "7200")
    monkeypatch.setenv("JUPYTERHUB_SERVER_NAME", "big")
    assert CullExemption.from_environment().most == timedelta(hours=2).total_seconds()
