"""Load a pipeline with the real CellProfiler, once: what is checked here is what tasks run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from labkit.base.units import format_duration
from labkit.viewers.paths import EnvironmentMissingError, cache_folder, program, write_private
from labkit.viewers.progress import shown
from labkit.workflows.cellprofiler.pipeline import (
    INPUT_MODULES,
    Findings,
    Module,
    Pipeline,
    PipelineError,
)
from labkit.workflows.cellprofiler.task_code import alike

#: Environment that CellProfiler is installed in.
ENVIRONMENT = "cellprofiler"
_HEADER = "CellProfiler Pipeline: http"
_TASK_CODE = Path(__file__).parent / "task_code"
_PROBE = _TASK_CODE / "probe.py"
#: The driver of the tasks that run CellProfiler.
DRIVER = _TASK_CODE / "driver.py"
_TIMEOUT = 900.0  # seconds: on a busy machine it takes minutes to start
_KEPT = 200  # answers
_LONGEST_NAME = 255


def load(
    path: str | Path,
    *,
    columns: Sequence[str] = (),
    row: Sequence[str] = (),
    input_folder: Path | None = None,
    plugins: Path | None = None,
) -> Pipeline:
    """Load a pipeline with CellProfiler (about four CPU seconds); the answer is remembered.

    Parameters
    ----------
    path : str or Path
        A ``.cppipe`` or ``.json`` file.
    columns, row : sequence of str
        Columns of the image sets and the values of one of them, which LoadData needs to know.
    input_folder : Path, optional
        CellProfiler's Default Input Folder, where the pipeline looks for further files.
    plugins : Path, optional
        Folder of plugins.

    Returns
    -------
    Pipeline
        With what CellProfiler has against it in ``findings``.

    Raises
    ------
    PipelineError
        There is no such file, it is no pipeline, or CellProfiler is not installed here.
    """
    path = Path(path).expanduser().resolve()
    data = _content(path)
    try:
        python = program(ENVIRONMENT, "python")
    except EnvironmentMissingError as error:
        raise PipelineError(
            f"CellProfiler is needed to read a pipeline, and is not installed here. {error}"
        ) from error
    parts = (
        hashlib.sha256(data).hexdigest(),
        path.suffix,
        _program_digest(str(python)),
        folder_digest(plugins) if plugins else "",
        str(input_folder or ""),
        "\n".join(columns),
    )
    file = cache_folder(ENVIRONMENT) / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.json"
    answer = _recall(file, input_folder)
    if answer is None:
        with shown(None) as tell:
            tell(f"Loading {path.name} with CellProfiler; once it is known this takes no time ...")
            answer = _ask(python, path, columns, row, input_folder, plugins)
        _remember(file, answer, input_folder)
    return _pipeline(path, answer)


def support_files(pipeline: Pipeline, folder: Path | None) -> list[Path]:
    """Return the files of the Default Input Folder that settings name (``WormModel.xml``)."""
    return _named_in(folder, (v for module in pipeline.enabled for _, v in module.settings))


def folder_digest(folder: Path) -> str:
    """Return the content of the Python files of a folder, as one hash."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise PipelineError(f"there is no pipeline at {path}")
    data = path.read_bytes()
    if data.startswith(b"\x89HDF"):
        raise PipelineError(
            f"{path.name} is a CellProfiler project or batch file; "
            "export the pipeline instead (File > Export > Pipeline)"
        )
    text = data[:200].decode("utf-8", errors="replace").lstrip("\ufeff")
    if path.suffix == ".json":
        if not text.lstrip().startswith("{"):
            raise PipelineError(f"{path.name} is not a pipeline in JSON")
    elif not text.startswith(_HEADER):
        raise PipelineError(f"{path.name} does not begin like a CellProfiler pipeline")
    return data


@lru_cache(maxsize=8)
def _program_digest(python: str) -> str:
    """Return which CellProfiler it is: its environment's lock, and the probe that asks it."""
    digest = hashlib.sha256(python.encode() + _PROBE.read_bytes())
    for name in ("labhub.json", "pyvenv.cfg"):
        file = Path(python).parent.parent / name
        digest.update(file.read_bytes() if file.is_file() else b"\0")
    return digest.hexdigest()


def _ask(
    python: Path,
    path: Path,
    columns: Sequence[str],
    row: Sequence[str],
    input_folder: Path | None,
    plugins: Path | None,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as name:
        folder = Path(name)
        written = folder / "written.cppipe"
        argv = [str(python), "-s", str(_PROBE), str(path), str(written)]
        if columns:
            data = folder / "one.csv"
            pd.DataFrame([row] if row else [], columns=list(columns)).to_csv(data, index=False)
            argv += ["--data-file", str(data)]
        if input_folder:
            argv += ["--input-folder", str(input_folder)]
        if plugins:
            argv += ["--plugins", str(plugins)]
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise PipelineError(
                f"CellProfiler has not read the pipeline within {format_duration(_TIMEOUT)}. Next "
                "step: look how busy the machine is (`uptime`), and try again."
            ) from None
        except OSError as error:
            raise PipelineError(f"CellProfiler could not be asked: {error}") from error
        lines = [line[6:] for line in done.stdout.splitlines() if line.startswith("PROBE ")]
        if not lines:
            said = done.stderr.strip().splitlines()[-3:]
            raise PipelineError(f"CellProfiler could not be asked: {' '.join(said)[-500:]}")
        answer: dict[str, Any] = json.loads(lines[-1])
        ours = (*INPUT_MODULES, "LoadData")  # they have no images here: labkit checks them
        answer["invalid"] = [bad for bad in answer["invalid"] if bad["module"] not in ours]
        answer["text"] = written.read_text(encoding="utf-8") if written.is_file() else ""
        return answer


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a CellProfiler process: nothing of the notebook's own Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "JUPYTER", "JPY_"))}
    return {**kept, **alike.ENVIRONMENT, "MPLCONFIGDIR": str(folder)}


def _recall(file: Path, input_folder: Path | None) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        values = (value for module in answer["modules"] for _, value in module["settings"])
        same = answer["support"] == [path.name for path in _named_in(input_folder, values)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answer if same else None


def _remember(file: Path, answer: dict[str, Any], input_folder: Path | None) -> None:
    """Keep an answer; one with a fault may change with what surrounds the pipeline."""
    if answer["error"] or answer["dropped"] or answer["invalid"]:
        return
    values = (value for module in answer["modules"] for _, value in module["settings"])
    support = [path.name for path in _named_in(input_folder, values)]
    try:
        write_private(file, json.dumps({**answer, "support": support}))
        old = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in old[:-_KEPT]:
            path.unlink(missing_ok=True)
    except OSError:  # a full home only costs time
        return


def _named_in(folder: Path | None, values: Iterable[str]) -> list[Path]:
    if folder is None:
        return []
    names = sorted({v for v in values if 0 < len(v) <= _LONGEST_NAME and "\0" not in v})
    plain = [name for name in names if "/" not in name and name not in (".", "..")]
    return [folder / name for name in plain if (folder / name).is_file()]


def _pipeline(path: Path, answer: dict[str, Any]) -> Pipeline:
    modules = tuple(
        Module(
            int(module["number"]),
            str(module["name"]),
            tuple((str(text), str(value)) for text, value in module["settings"]),
            bool(module["enabled"]),
            tuple(map(str, module["reads"])),
        )
        for module in answer["modules"]
    )
    findings = Findings(
        version=str(answer["version"]),
        dropped=tuple(answer["dropped"]),
        invalid=tuple(answer["invalid"]),
        across=tuple(answer["across"]),
        embedded=int(answer["embedded"]),
        error=str(answer["error"]),
    )
    if not modules and not findings.error:
        raise PipelineError(f"{path.name} holds no modules")
    return Pipeline(path, modules, str(answer["text"]), findings)
