"""The alignment tutorial with the real tools; its reads' truth is known."""

from __future__ import annotations

import pytest

from tests.conftest import needs_env
from tests.notebooks.test_notebooks import Tutor, tutor

__all__ = ["tutor"]

_CHECKS = """
depth = job.plot("coverage").axes[0].lines[0].get_ydata()
row = alignment.loc["wild"]
seen = {
    "samples": list(alignment.index),
    "mapped": float(alignment["mapped_fraction"].min()),
    "duplicates": float((alignment["duplicates"] / pd.Series(copies)).mean()),
    "insert size": float(row["insert_size_median"] - truth["length"].median()),
    "depth": float(depth.mean() / row["mean_depth"]),
    "true depth": float(row["mean_depth"] * 60_000 / 200 / (~truth["duplicate"]).sum()),
    "found": len(found), "variants": len(made.variants), "called": len(variants),
    "report": job.report.stat().st_size, "failed": len(job.failed()),
    "refused": [str(p) for p in labkit.Alignment(wrong, reference=made.reference).check()],
}
"""


@pytest.mark.slow
@needs_env("alignment")
@needs_env("notebook")
def test_the_alignment_tutorial_finds_the_truth(tutor: Tutor) -> None:
    seen = tutor.execute("03-alignment.ipynb", _CHECKS)
    assert seen["samples"] == ["wild", "mutant"]
    assert seen["mapped"] > 0.999
    assert seen["duplicates"] == pytest.approx(1, abs=0.05)
    assert abs(seen["insert size"]) <= 3
    assert seen["depth"] == pytest.approx(1, abs=0.02)
    assert seen["true depth"] == pytest.approx(1, abs=0.03)
    assert seen["found"] >= 0.95 * seen["variants"] == 57
    assert seen["called"] <= seen["found"] + 1
    assert seen["report"] > 1_000_000 and seen["failed"] == 0
    assert any("are not mates of each other" in text for text in seen["refused"])
