"""How much homes hold: measured as their owners, whatever they have made of them."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path

import pytest

from hub.labfile.schema import Settings
from hub.runtime import doctor
from hub.sandbox import home_use
from hub.sandbox.home_use import HomeUse, measure
from hub.state.paths import Paths
from labkit.base.remove import remove_tree
from tests.conftest import needs_root
from tests.support.shaped_trees import deep


@needs_root
def test_any_home_is_measured_as_its_owner(ada: str) -> None:
    account = pwd.getpwnam(ada)
    home = Path(account.pw_dir)
    before = measure(account, 60)
    assert before is not None
    shaped, closed = home / "shaped", home / "of-root"
    try:
        (home / "data").write_bytes(os.urandom(3 << 20))
        shaped.mkdir()
        for path in (home / "data", shaped):
            os.chown(path, account.pw_uid, account.pw_gid)
        deep(shaped, uid=account.pw_uid, gid=account.pw_gid)
        closed.mkdir(mode=0o700)  # a folder that its owner cannot enter is not theirs
        (closed / "large").write_bytes(os.urandom(40 << 20))
        after = measure(account, 60)
    finally:
        (home / "data").unlink(missing_ok=True)
        remove_tree(closed)
        assert remove_tree(shaped)
    assert after is not None
    # Three thousand folders take some 12 MB themselves.
    assert (3 << 20) <= after - before < (40 << 20)
    assert measure(account, 0.0001) is None


async def test_it_is_measured_in_the_background_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    calls: list[str] = []

    def counted(account: pwd.struct_passwd, _: float) -> int:
        calls.append(account.pw_name)
        return 3 << 30

    monkeypatch.setattr(home_use, "measure", counted)
    use = HomeUse()
    assert use.text(me) == ""
    assert use.text("nobody-of-this-name") == ""
    async with asyncio.timeout(60):
        while not use.text(me):
            await asyncio.sleep(0.01)
    assert use.text(me) == "3 GB"
    assert calls == [me]


@needs_root
def test_doctor_names_homes_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ada: str, bob: str
) -> None:
    sizes = {ada: 5 << 30, bob: 7 << 30}
    monkeypatch.setattr(home_use, "measure", lambda account, _: sizes.get(account.pw_name))
    detail = doctor.homes(Settings(), Paths(tmp_path, tmp_path)).detail
    assert detail.index(f"{bob} 7 GB") < detail.index(f"{ada} 5 GB")
    monkeypatch.setattr(home_use, "measure", lambda *_: None)
    assert "not measured" in doctor.homes(Settings(), Paths(tmp_path, tmp_path)).detail
