"""The answers that a browser needs for the first picture of a dataset, kept beside its data.

They are collected when a version is published, by opening it once. A dataset that nobody has
used for weeks then shows its cells at once, while its CellxGene starts behind it. They hold for
one version of CellxGene; after an upgrade they are not used, and the start is waited for.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from services.cellxgene.answers import Answer

# Raise it when what is collected, or what serve.py changes in the answers, becomes different.
_RULES = 2
LARGEST = 64 << 20  # bytes of the answers of one dataset
_ASSET = re.compile(r'(?:src|href)="(static/[\w.-]+\.(?:js|css))"')
_FONT = re.compile(r"url\([\"']?(assets/[\w.-]+)[\"']?\)")
FIRST = ("", "api/v0.2/config", "api/v0.2/schema", "api/v0.2/colors", "api/v0.2/genesets")
SCHEMA = "api/v0.2/schema"
# Columns of these types are drawn beside the picture at once.
_DRAWN = frozenset({"categorical", "boolean", "string"})


def stamp(python: Path) -> str:
    """Return what the answers hold for: CellxGene's version in the environment of a Python."""
    folders = python.parent.parent.glob("lib/python3*/site-packages/cellxgene-*.dist-info")
    return f"{'|'.join(sorted(folder.name for folder in folders))}|{_RULES}"


def is_asset(target: str) -> bool:
    """Return whether a path is of CellxGene itself, the same for all datasets."""
    return target.startswith("static/")


def assets(index: Answer) -> list[str]:
    """Return the scripts and styles that the page names."""
    return _ASSET.findall(index.text)


def fonts(style: Answer) -> list[str]:
    """Return the fonts and pictures that a style names."""
    return [f"static/{path}" for path in dict.fromkeys(_FONT.findall(style.text))]


def of_schema(schema: Answer) -> tuple[list[str], list[str]]:
    """Return the paths that the page asks for by what the dataset has.

    Returns
    -------
    picture : list of str
        Needed for the first picture: the maps, and the columns with categories.
    later : list of str
        Asked for right after it: the histograms, the names of the genes.
    """
    described = json.loads(schema.text)["schema"]
    maps = [one["name"] for one in described["layout"]["obs"]]
    columns = described["annotations"]["obs"]
    all_columns = [one for one in columns["columns"] if one["name"] != columns["index"]]
    drawn = [one["name"] for one in all_columns if one["type"] in _DRAWN]
    others = [one["name"] for one in all_columns if one["type"] not in _DRAWN]
    obs = "api/v0.2/annotations/obs?annotation-name="
    picture = [f"api/v0.2/layout/obs?layout-name={_quoted(name)}" for name in maps]
    picture += [obs + _quoted(name) for name in drawn]
    genes = _quoted(described["annotations"]["var"]["index"])
    later = [f"api/v0.2/annotations/var?annotation-name={genes}"]
    return picture, later + [obs + _quoted(name) for name in others]


def _quoted(name: str) -> str:
    """Quote a name as JavaScript's encodeURIComponent does."""
    return quote(name, safe="!'()*-._~")


def pack(stamped: str, answers: Mapping[str, Answer]) -> bytes | None:
    """Return the answers as one file; None where they are too large to be worth it."""
    if sum(answer.size for answer in answers.values()) > LARGEST:
        return None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        listed = []
        for number, (target, answer) in enumerate(answers.items()):
            listed.append([target, answer.content_type, answer.encoding])
            archive.writestr(str(number), answer.body)
        archive.writestr("list", json.dumps({"stamp": stamped, "answers": listed}))
    return out.getvalue()


def unpack(stamped: str, content: bytes) -> dict[str, Answer]:
    """Return the answers of a file; none where they are of another CellxGene."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        listed = json.loads(archive.read("list"))
        if listed["stamp"] != stamped:
            return {}
        return {
            target: Answer(200, content_type, encoding, archive.read(str(number)))
            for number, (target, content_type, encoding) in enumerate(listed["answers"])
        }
