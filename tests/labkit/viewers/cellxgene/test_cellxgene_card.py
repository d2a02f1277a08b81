"""The card, and labkit itself: light, complete, and nothing of the data runs as code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import labkit
from labkit.viewers.cellxgene.card import Card, link
from labkit.viewers.cellxgene.process import Record


def a_card() -> Card:
    evil = "<script>alert('x')</script>"
    return Card(
        Record(
            pid=2**22 + 1,
            created=1.0,
            port=5005,
            key="k",
            lineage="l",
            title=evil,
            shape=(1234, 56),
            served="/x.h5ad",
            labels=f"/home/{evil}",
            memory=1,
            changes=[[f"obs[{evil!r}]", evil]],
            notes=[evil],
        )
    )


def test_the_card_escapes_everything(home: Path) -> None:
    card = a_card()
    page = card._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
    assert "1,234 cells × 56 genes" in page and "1,234 cells × 56 genes" in repr(card)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("/user/ada/", "/user/ada/proxy/5005/"),
        ("/user/ada/second", "/user/ada/second/proxy/5005/"),
        ("", "http://127.0.0.1:5005/"),
    ],
)
def test_the_link_ends_in_a_slash(
    prefix: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", prefix)
    assert link(5005) == expected


def test_importing_labkit_loads_next_to_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import labkit; dir(labkit)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"labkit"}
    assert {"importlib.metadata", "json", "subprocess", "asyncio"}.isdisjoint(loaded)


def test_labkit_offers_its_parts() -> None:
    assert set(labkit.__all__) == set(dir(labkit)) >= {"cellxgene", "__version__"}
    assert callable(labkit.cellxgene)
    with pytest.raises(AttributeError, match=r"'cellxgen'.*cellxgene"):
        labkit.cellxgen  # noqa: B018


def test_labkit_knows_nobody_here() -> None:
    root = Path(labkit.__file__).parent
    for path in root.rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and len(words) > 1:
                assert words[1].split(".")[0] not in {"hub", "services", "jupyterhub"}, path
