"""The picture of the packages in docs/explanation/architecture.md, drawn from the imports.

``PYTHONPATH=. python .ci/package_picture.py`` (with dev's Python) draws it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import grimp

TOP = Path(__file__).resolve().parents[1]
FILE = TOP / "docs" / "explanation" / "packages.svg"
ROOTS = ("hub", "services", "labkit")
Edges = Mapping[str, frozenset[str]]  # package -> the packages that it imports

_WIDTH, _BOX, _HEIGHT, _PITCH = 960, 118, 28, 62  # pixels
_HEAD = 44  # of a root's name
_STYLE = """\
text { font: 13px sans-serif; fill: #1b1f24; text-anchor: middle }
.root { font-weight: bold; text-anchor: start }
rect { fill: #eef3f8; stroke: #5b7083 }
.band { fill: none; stroke: #b6c2cd }
path { fill: none; stroke: #5b7083; stroke-opacity: .6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e8ecf0 } rect { fill: #27323d; stroke: #8fa3b5 }
  .band { fill: none; stroke: #4a5966 } path { stroke: #8fa3b5 }
}"""


def imports() -> dict[str, frozenset[str]]:
    """Return which package imports which, imports in functions and for types included.

    Packages are those right below `ROOTS`, as ``hub.apps``.
    """
    graph = grimp.build_graph(*ROOTS, cache_dir=None)
    edges: dict[str, set[str]] = {}
    for module in graph.modules:
        importer = _package(module)
        if importer is None:
            continue
        edges.setdefault(importer, set())
        for imported in map(_package, graph.find_modules_directly_imported_by(module)):
            if imported not in (None, importer):
                edges[importer].add(str(imported))
    return {package: frozenset(edges[package]) for package in sorted(edges)}


def _package(module: str) -> str | None:
    parts = module.split(".")
    return None if len(parts) < 2 or parts[1].startswith("__") else ".".join(parts[:2])


def inside(edges: Edges, root: str) -> dict[str, frozenset[str]]:
    """Return the edges among the packages of one root."""
    mine = {package for package in edges if package.startswith(f"{root}.")}
    return {package: edges[package] & mine for package in sorted(mine)}


def layers(edges: Edges) -> list[list[str]]:
    """Return packages in layers, the lowest last: each imports from lower ones alone.

    Raises
    ------
    ValueError
        They import each other in a circle.
    """
    rows: list[list[str]] = []
    below: set[str] = set()
    while len(below) < len(edges):
        row = [name for name, used in edges.items() if name not in below and used <= below]
        if not row:
            left = ", ".join(sorted(set(edges) - below))
            raise ValueError(f"a circle of imports is among: {left}")
        rows.insert(0, row)
        below |= set(row)
    return rows


def reduced(edges: Edges) -> dict[str, frozenset[str]]:
    """Return the edges without those that follow from others: what a picture needs."""

    def reach(package: str) -> frozenset[str]:
        return edges[package].union(*map(reach, edges[package]))

    return {package: used - frozenset().union(*map(reach, used)) for package, used in edges.items()}


def draw(edges: Edges) -> str:
    """Return the picture as SVG."""
    lines: list[str] = []
    top = 4
    for root in ROOTS:
        own = inside(edges, root)
        rows = layers(own)
        height = _HEAD + _PITCH * len(rows) - (_PITCH - _HEIGHT) + 14
        lines.append(f'<rect class="band" x="4" y="{top}" width="{_WIDTH - 8}" height="{height}"/>')
        lines.append(
            f'<text class="root" x="16" y="{top + 22}">{root}: {_count(edges, root)}</text>'
        )
        lines += _rows(rows, reduced(own), top + _HEAD)
        top += height + 12
    named = f"The packages of {', '.join(ROOTS)} in layers; each imports from lower ones alone."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img">',
            f"<title>{named}</title>",
            f"<style>\n{_STYLE}\n</style>",
            *lines,
            "</svg>\n",
        ]
    )


def _count(edges: Edges, root: str) -> str:
    own = inside(edges, root)
    text = f"{len(own)} packages and modules in {len(layers(own))} layers, {_sum(own)} edges"
    for other in ROOTS[ROOTS.index(root) + 1 :]:
        across = sum(name.startswith(f"{other}.") for package in own for name in edges[package])
        text += f", {across} to {other}"
    return text


def _sum(edges: Edges) -> int:
    return sum(map(len, edges.values()))


def _rows(rows: list[list[str]], edges: Edges, top: int) -> list[str]:
    """Return the boxes of one root and what connects them, in order of those above them."""
    places: dict[str, tuple[float, int]] = {}
    for number, row in enumerate(rows):
        step = _WIDTH / len(row)

        def wanted(package: str) -> tuple[float, str]:
            above = [places[name][0] for name in places if package in edges[name]]
            return (sum(above) / len(above) if above else _WIDTH / 2, package)

        for index, package in enumerate(sorted(row, key=wanted)):
            places[package] = (round(step * (index + 0.5), 1), top + _PITCH * number)
    lines = []
    for package, used in edges.items():
        x, y = places[package][0], places[package][1] + _HEIGHT
        for name in sorted(used):
            to_x, to_y = places[name]
            bend = (y + to_y) / 2
            lines.append(f'<path d="M{x} {y} C{x} {bend} {to_x} {bend} {to_x} {to_y}"/>')
    for package, (x, y) in places.items():
        left = round(x - _BOX / 2, 1)
        lines.append(f'<rect x="{left}" y="{y}" width="{_BOX}" height="{_HEIGHT}" rx="4"/>')
        lines.append(f'<text x="{x}" y="{y + 18}">{package.split(".")[1]}</text>')
    return lines


if __name__ == "__main__":
    FILE.write_text(draw(imports()), encoding="utf-8")
