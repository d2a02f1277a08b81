"""Cards and collections of published things: for eyes, and against what others wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from labkit.base.problems import RefusedError
from labkit.portal import collection

if TYPE_CHECKING:
    import pandas as pd


class Plates(collection.Collection[str]):
    kind = "plate"
    nothing = "No plate <yet>."

    def table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame({"name": list(self)})


def test_what_others_wrote_is_no_markup() -> None:
    evil = "<script>alert(1)</script>'\""
    html = collection.card(evil, [(evil, evil)], f"http://lab.example/{evil}", evil)
    assert "<script" not in html and "'\"" not in html
    shown = Plates({"a": evil})._repr_html_()
    assert "<script" not in shown


def test_text_for_a_terminal() -> None:
    text = collection.lines("Blood", [("Owner", "ada"), ("Seen by", "imaging")], "http://x/")
    assert text == "Blood  http://x/\n  Owner    ada\n  Seen by  imaging"


def test_a_shelf_is_asked_by_name() -> None:
    plates = Plates({"one": "first", "two": "second"})
    assert (len(plates), "one" in plates, "three" in plates) == (2, True, False)
    assert list(plates) == ["first", "second"] and plates["two"] == "second"
    with pytest.raises(RefusedError, match="Did you mean 'one'"):
        plates["onw"]


def test_an_empty_shelf_says_so() -> None:
    assert repr(Plates({})) == "No plate <yet>."
    assert Plates({})._repr_html_() == "<p>No plate &lt;yet&gt;.</p>"
