"""A home without room: its owner comes in all the same, is told, and loses nothing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_root
from tests.labkit.environments.notebook import notebook
from tests.labkit.server.conftest import Server, small_home


def cells(text: str) -> dict[str, Any]:
    """Return a notebook with a text in it, as the page sends it."""
    cell = {"cell_type": "raw", "id": "a", "metadata": {}, "source": text}
    content = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return {"type": "notebook", "content": content}


def fill(folder: Path) -> None:
    with (
        (folder / "results.bin").open("ab", buffering=0) as file,
        pytest.raises(OSError, match="No space left"),
    ):
        while file.write(bytes(4096)):
            pass


@pytest.fixture
def small() -> Iterator[Server]:
    """A home that holds next to nothing."""
    with small_home("256k") as server:
        yield server


@needs_root
def test_a_server_starts_in_a_full_home_and_no_save_loses_a_thing(small: Server) -> None:
    (small.home / "old.ipynb").write_text(json.dumps(cells("as it was")["content"]))
    fill(small.home)
    small.start()
    with notebook(small) as running:
        assert running.run("print(6 * 7)") == "42\n"
    with small.client() as client:
        assert client.get("labkit/").status_code == 200
        for name, model in (
            ("old.ipynb", cells("new " * 5000)),
            ("new.ipynb", cells("new " * 5000)),
            ("new.txt", {"type": "file", "format": "text", "content": "new " * 5000}),
        ):
            answer = client.put(f"api/contents/{name}", json=model)
            assert answer.status_code == 507, answer.text
            assert answer.json()["message"].startswith(f"{name} was not saved. There is no room")
        old = client.get("api/contents/old.ipynb").json()["content"]
    assert old["cells"][0]["source"] == "as it was"
    assert not [path for path in small.home.iterdir() if path.name.startswith(("new", ".~"))]


def test_a_save_keeps_permissions_links_and_owners(server: Server) -> None:
    place = server.home / "a.ipynb"
    with server.client() as client:

        def save(text: str, name: str = "a.ipynb") -> str:
            answer = client.put(f"api/contents/{name}", json=cells(text))
            assert answer.status_code in (200, 201), answer.text
            content = json.loads(place.read_text())
            return "".join(content["cells"][0]["source"])

        assert save("one") == "one"
        place.chmod(0o640)
        assert save("two") == "two"
        assert stat.S_IMODE(place.stat().st_mode) == 0o640
        (server.home / "link.ipynb").symlink_to("a.ipynb")
        assert save("three", "link.ipynb") == "three"
        assert (server.home / "link.ipynb").is_symlink()
        os.link(place, server.home / "twin.ipynb")
        assert save("four, which is longer than what was there before") != "three"
        assert place.samefile(server.home / "twin.ipynb")
        assert save("5") == "5"  # shorter: nothing of the old one stays at its end
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
            assert save("six") == "six"
            assert place.stat().st_uid == 65534
    assert [path.name for path in server.home.glob(".~*")] == []
