"""Pipelines for tests: short texts, and CellProfiler itself as the reference."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from labkit.workflows.cellprofiler import example
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


def names_and_types(
    *,
    match: str = "Order",
    keys: str = "[]",
    groups: Sequence[str] = (),
    regexp: str = REGEXP,
    extract: str = "Yes",
    rules: Sequence[tuple[str, str]] = (("DNA", '"w1"'), ("ER", '"w2"')),
) -> str:
    """Return the four input modules, in CellProfiler's own format (revisions 2, 6, 8, 2)."""
    content = text(
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
    )
    for name, revision in (("Images", 2), ("Metadata", 6), ("NamesAndTypes", 8), ("Groups", 2)):
        start = content.index(f"\n{name}:[")
        content = content[:start] + content[start:].replace(
            "variable_revision_number:1", f"variable_revision_number:{revision}", 1
        )
    return content


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


# A task has as many threads as cores; with others, OpenBLAS adds up in another order, and some
# texture features differ in their last bit.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

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
