"""Draw picard's histogram of insert sizes, in place of its R script: ``histogram.py METRICS PDF``.

It stands alone: a program of its own, beside picard.
"""

from __future__ import annotations

import sys
from pathlib import Path

ORIENTATIONS = {"fr_count": "inward", "rf_count": "outward", "tandem_count": "same strand"}


def read(metrics: Path) -> tuple[list[str], list[list[float]]]:
    """Return names and values of the columns of a metrics file's histogram.

    Raises
    ------
    ValueError
        It has none.
    """
    lines = metrics.read_text(encoding="utf-8").splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith("## HISTOGRAM")]
    if not starts:
        raise ValueError(f"{metrics} has no histogram")
    names, *rows = [line.split("\t") for line in lines[starts[0] + 1 :] if line]
    return names, [[float(row[at]) for row in rows] for at in range(len(names))]


def draw(metrics: Path, pdf: Path, title: str) -> None:
    """Write the histogram as PDF."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    names, columns = read(metrics)
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasPdf(figure)
    axes = figure.add_subplot()
    for name, counts in zip(names[1:], columns[1:]):  # noqa: B905 -- Python 3.9
        label = ORIENTATIONS.get(name.rpartition(".")[2], name)
        axes.fill_between(columns[0], counts, step="mid", alpha=0.6, label=label)
    axes.set_title(f"Insert sizes of {title}")
    axes.set_xlabel("Insert size (bases)")
    axes.set_ylabel("Pairs of reads")
    axes.set_ylim(bottom=0)
    axes.legend(title="Mates")
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]), " ".join(sys.argv[3:4]))
