"""Load a pipeline as CellProfiler does and print, as JSON, what it would drop or refuse.

Called as ``python probe.py PIPELINE [--data-file CSV] [--plugins FOLDER]`` with the Python of the
cellprofiler environment.
"""

import argparse
import json
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the findings on one line behind ``PROBE ``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline")
    parser.add_argument("--data-file")
    parser.add_argument("--plugins")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)

    import_module("numpy").seterr(all="ignore")
    preferences = import_module("cellprofiler_core.preferences")
    preferences.set_awt_headless(True)
    preferences.set_headless()
    if options.plugins:
        preferences.set_plugin_directory(options.plugins, globally=False)
    if options.data_file:
        preferences.set_data_file(options.data_file)

    core = import_module("cellprofiler_core.pipeline")
    pipeline = core.Pipeline()
    dropped = []

    def listen(_: Any, event: Any) -> None:
        if isinstance(event, core.LoadException):
            dropped.append({"module": event.module_name or "?", "error": describe(event.error)})
            event.cancel_run = False

    pipeline.add_listener(listen)
    error = ""
    if needs_java(options.pipeline):
        import_module("cellprofiler_core.utilities.java").start_java()
    try:
        pipeline.load(options.pipeline)
    except Exception as problem:
        error = describe(problem)
    invalid = []
    for module in pipeline.modules():
        try:
            module.test_valid(pipeline)
        except Exception as problem:
            invalid.append(found(module, problem))
    tables: dict[str, int] = {}
    try:
        for column in pipeline.get_measurement_columns():
            tables[column[0]] = tables.get(column[0], 0) + 1
    except Exception as problem:
        error = error or describe(problem)
    findings = {
        "version": import_module("cellprofiler_core").__version__,
        "modules": [module.module_name for module in pipeline.modules(False)],
        "across": [m.module_num for m in pipeline.modules() if m.is_aggregation_module()],
        "dropped": dropped,
        "invalid": invalid,
        "tables": tables,
        "error": error,
    }
    sys.stdout.write("PROBE " + json.dumps(findings) + "\n")
    sys.stdout.flush()


def needs_java(path: str) -> bool:
    """Whether metadata is looked up in Java: where images do not come from LoadData."""
    return "NamesAndTypes" in Path(path).read_text(encoding="utf-8", errors="replace")


def describe(error: BaseException) -> str:
    """Return an exception's text, or its name where it has none."""
    return str(error) or type(error).__name__


def found(module: Any, error: BaseException) -> dict[str, Any]:
    """Return one finding about a module."""
    return {"module": module.module_name, "number": module.module_num, "error": describe(error)}


if __name__ == "__main__":
    main()
    # no thread of CellProfiler's may keep the process alive
    import os

    os._exit(0)
