"""Pipelines for tests: short texts, and CellProfiler itself as the reference."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.workflows.cellprofiler import example
from labkit.workflows.cellprofiler.pipeline import Findings, Module, Pipeline
from tests.support.portal import REPOSITORY, built_envs

EXAMPLE_FLY = REPOSITORY.parent / "shared" / "data" / "imaging" / "ExampleFly"

_ATTRIBUTES = (
    "|svn_version:'Unknown'|variable_revision_number:{revision}|show_window:False|notes:[]"
    "|batch_state:array([], dtype=uint8)|enabled:{enabled}|wants_pause:False]"
)


def text(*modules: tuple[str, Sequence[tuple[str, str]]], disabled: Sequence[int] = ()) -> str:
    """Return a pipeline of modules and their settings."""
    parts = [
        "CellProfiler Pipeline: http://www.cellprofiler.org\nVersion:5\nDateRevision:428\n"
        f"GitHash:\nModuleCount:{len(modules)}\nHasImagePlaneDetails:False\n"
    ]
    for number, (name, settings) in enumerate(modules, 1):
        attributes = _ATTRIBUTES.format(revision=1, enabled=number not in disabled)
        lines = "".join(f"    {key}:{value}\n" for key, value in settings)
        parts.append(f"{name}:[module_num:{number}{attributes}\n{lines}")
    return "\n".join(parts)


def made(
    *modules: tuple[str, Sequence[tuple[str, str]]],
    disabled: Sequence[int] = (),
    across: Sequence[int] = (),
    path: Path = Path("/made/test.cppipe"),
) -> Pipeline:
    """Return a pipeline as if CellProfiler had loaded these modules."""
    return Pipeline(
        path,
        tuple(
            Module(number, name, tuple(settings), number not in disabled)
            for number, (name, settings) in enumerate(modules, 1)
        ),
        text(*modules, disabled=disabled),
        Findings(version="4.2.8", across=tuple(across)),
    )


def write(folder: Path, content: str, name: str = "test.cppipe") -> Path:
    path = folder / name
    path.write_text(content)
    return path


LOAD = (
    "LoadData",
    [
        ("Load images based on this data?", "Yes"),
        ("Process just a range of rows?", "No"),
        ("Group images by metadata?", "No"),
    ],
)
EXPORT = ("ExportToSpreadsheet", [("Export all measurement types?", "Yes")])

REGEXP = r"^(?P<Plate>.*)_(?P<Well>[A-P][0-9]+)_s(?P<Site>[0-9]+)_w(?P<Wave>[0-9])"


def named_and_typed(**settings: Any) -> Pipeline:
    """Return the four input modules as CellProfiler has them; see :func:`names_and_types`."""
    return made(*input_modules(**settings))


def names_and_types(**settings: Any) -> str:
    """Return the four input modules, in CellProfiler's own format (revisions 2, 6, 8, 2)."""
    content = text(*input_modules(**settings))
    for name, revision in (("Images", 2), ("Metadata", 6), ("NamesAndTypes", 8), ("Groups", 2)):
        start = content.index(f"\n{name}:[")
        content = content[:start] + content[start:].replace(
            "variable_revision_number:1", f"variable_revision_number:{revision}", 1
        )
    return content


def input_modules(
    *,
    match: str = "Order",
    keys: str = "[]",
    groups: Sequence[str] = (),
    regexp: str = REGEXP,
    extract: str = "Yes",
    rules: Sequence[tuple[str, str]] = (("DNA", '"w1"'), ("ER", '"w2"')),
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the modules Images, Metadata, NamesAndTypes and Groups with their settings."""
    return [
        (
            "Images",
            [
                ("", ""),
                ("Filter images?", "Images only"),
                (
                    "Select the rule criteria",
                    'and (extension does isimage) (directory doesnot startwith ".")',
                ),
            ],
        ),
        (
            "Metadata",
            [
                ("Extract metadata?", extract),
                ("Metadata data type", "Text"),
                ("Metadata types", "{}"),
                ("Extraction method count", "1"),
                ("Metadata extraction method", "Extract from file/folder names"),
                ("Metadata source", "File name"),
                ("Regular expression to extract from file name", regexp),
                ("Regular expression to extract from folder name", "(?P<Date>[0-9]{4})$"),
                ("Extract metadata from", "All images"),
                ("Select the filtering criteria", 'and (file does contain "")'),
                ("Metadata file location", "Elsewhere...|"),
                ("Match file and image metadata", "[]"),
                ("Use case insensitive matching?", "No"),
                ("Metadata file name", "None"),
                ("Does cached metadata exist?", "No"),
            ],
        ),
        (
            "NamesAndTypes",
            [
                ("Assign a name to", "Images matching rules"),
                ("Select the image type", "Grayscale image"),
                ("Name to assign these images", "DNA"),
                ("Match metadata", keys),
                ("Image set matching method", match),
                ("Set intensity range from", "Image metadata"),
                ("Assignments count", str(len(rules))),
                ("Single images count", "0"),
                ("Maximum intensity", "255.0"),
                ("Process as 3D?", "No"),
                ("Relative pixel spacing in X", "1.0"),
                ("Relative pixel spacing in Y", "1.0"),
                ("Relative pixel spacing in Z", "1.0"),
                *(
                    setting
                    for name, literal in rules
                    for setting in (
                        ("Select the rule criteria", f"and (file does contain {literal})"),
                        ("Name to assign these images", name),
                        ("Name to assign these objects", "Cell"),
                        ("Select the image type", "Grayscale image"),
                        ("Set intensity range from", "Image metadata"),
                        ("Maximum intensity", "255.0"),
                    )
                ),
            ],
        ),
        (
            "Groups",
            [
                ("Do you want to group your images?", "Yes" if groups else "No"),
                ("grouping metadata count", str(max(1, len(groups)))),
                *(("Metadata category", name) for name in groups or ["None"]),
            ],
        ),
    ]


def example_module(name: str, source: Path = example.ANALYSIS) -> str:
    """Return one module of an example pipeline as it stands in the file."""
    text = source.read_text()
    start = text.index(f"\n{name}:[") + 1
    return text[start:].split("\n\n", 1)[0].rstrip("\n") + "\n"


def joined(*modules: str) -> str:
    """Return a pipeline of modules as they stand in files."""
    numbered = [
        re.sub(r"\[module_num:\d+", f"[module_num:{number}", module, count=1)
        for number, module in enumerate(modules, 1)
    ]
    head = text().replace("ModuleCount:0", f"ModuleCount:{len(modules)}")
    return "\n".join([head, *numbered])


def colocalization(*images: str) -> str:
    """Return a pipeline whose MeasureColocalization is of a revision that is upgraded."""
    settings = [("Hidden", str(len(images))), ("Hidden", "1")]
    settings += [("Select an image to measure", image) for image in images]
    settings += [
        ("Set threshold as percentage of maximum intensity for the images", "15.0"),
        ("Select where to measure correlation", "Across entire image"),
        ("Select an object to measure", "None"),
        *(
            (f"Calculate {what}?", "Yes")
            for what in ("all", "correlation", "Manders", "RWC", "overlap", "Costes")
        ),
    ]
    lines = "".join(f"    {key}:{value}\n" for key, value in settings)
    attributes = _ATTRIBUTES.format(revision=3, enabled=True)
    module = f"MeasureColocalization:[module_num:2{attributes}\n{lines}"
    return joined(example_module("LoadData"), module, example_module("ExportToSpreadsheet"))


def version_3(content: str) -> str:
    """Return a pipeline as CellProfiler 3 wrote it: quotes are escaped, in names too."""
    return content.replace("Version:5", "Version:3").replace("'", "\\'")


def version_4(content: str) -> str:
    """Return a pipeline of version 4: values are UTF-16, with its order mark, and escaped."""

    def encoded(match: re.Match[str]) -> str:
        value = "".join(f"{letter}\\x00" for letter in match[2])
        return f"{match[1]}:\\xff\\xfe{value}"

    settings = re.sub(r"^(    [^:\n]*):(.+)$", encoded, content, flags=re.MULTILINE)
    return settings.replace("Version:5", "Version:4")


def changed(source: Path, folder: Path, *replacements: tuple[str, str]) -> Path:
    """Return a copy of a pipeline with other settings."""
    content = source.read_text()
    for old, new in replacements:
        assert old in content, old
        content = content.replace(old, new)
    return write(folder, content, f"changed-{source.name}")


def one_process(pipeline: Path, out: Path, images: pd.DataFrame | Path) -> dict[str, pd.DataFrame]:
    """Run CellProfiler itself, once over everything; return its tables."""
    out.mkdir()
    program = built_envs() / "cellprofiler" / "bin" / "cellprofiler"
    argv = [str(program), "-c", "-r", "-p", str(pipeline), "-o", str(out), "-d", str(out / "done")]
    if isinstance(images, pd.DataFrame):
        images.to_csv(out / "load_data.txt", index=False)
        argv += ["--data-file", str(out / "load_data.txt")]
    else:
        argv += ["-i", str(images)]
    subprocess.run(argv, check=True, capture_output=True, timeout=170, env=ONE_THREAD)
    assert (out / "done").read_text().strip() == "Complete"
    return {
        path.stem: pd.read_csv(path, float_precision="round_trip") for path in out.glob("*.csv")
    }


# CellProfiler's results depend on these; tasks have the same.
ONE_THREAD = {
    **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}

# What may differ between runs: times, places of files that the run itself made, and the packed
# addresses of files that CellProfiler keeps for itself.
VOLATILE = ("ImageSet_", "ExecutionTime_", "ProcessingStatus", "PathName_Illum", "URL_Illum")


def assert_equal(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Compare two tables cell by cell, columns and rows in the same order."""
    columns = [name for name in theirs.columns if not name.startswith(VOLATILE)]
    assert set(columns) <= set(ours.columns)
    assert len(ours) == len(theirs)
    pd.testing.assert_frame_equal(
        ours[columns].reset_index(drop=True),
        theirs[columns].reset_index(drop=True),
        check_dtype=False,
        check_exact=True,
    )


__all__ = ["EXAMPLE_FLY", "EXPORT", "LOAD", "example"]
