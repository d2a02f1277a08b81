"""Load a pipeline as CellProfiler does, write what it made of it, and print what it says of it.

Called as ``python probe.py PIPELINE WRITTEN [--data-file CSV] [--input-folder FOLDER]
[--plugins FOLDER]`` with the Python of the cellprofiler environment. CellProfiler upgrades old
pipelines while it loads them: WRITTEN is the upgraded pipeline, without notes and without the list
of files that some pipelines carry, and was loaded again to see that nothing was lost.
"""

import argparse
import json
import logging
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the findings on one line behind ``PROBE ``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline")
    parser.add_argument("written")
    parser.add_argument("--data-file")
    parser.add_argument("--input-folder")
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
    if options.input_folder:
        preferences.set_default_image_directory(options.input_folder)
    if needs_java(options.pipeline):
        import_module("cellprofiler_core.utilities.java").start_java()

    pipeline, dropped, error = load(options.pipeline)
    if not error and not dropped:
        error = incomplete(options.pipeline, len(pipeline.modules(False)))
    # before anything is validated: that changes the texts of settings
    modules = [
        {
            "name": module.module_name,
            "number": module.module_num,
            "enabled": bool(module.enabled),
            "settings": [[s.text, str(s.unicode_value)] for s in module.settings()],
            "reads": images_read(module),
        }
        for module in pipeline.modules(False)
    ]
    if not error and not dropped:
        error = write(pipeline, options.written)
    invalid = []
    for module in pipeline.modules():
        try:
            module.test_valid(pipeline)
        except Exception as problem:
            invalid.append(found(module, problem))
    findings = {
        "version": import_module("cellprofiler_core").__version__,
        "modules": modules,
        "across": [m.module_num for m in pipeline.modules() if m.is_aggregation_module()],
        "dropped": dropped,
        "invalid": invalid,
        "embedded": len(pipeline.file_list),
        "error": error,
    }
    sys.stdout.write("PROBE " + json.dumps(findings) + "\n")
    sys.stdout.flush()


def load(path: str) -> "tuple[Any, list[dict[str, Any]], str]":
    """Return the pipeline, the modules that it cannot load, and why it cannot be loaded at all."""
    core = import_module("cellprofiler_core.pipeline")
    pipeline = core.Pipeline()
    dropped = []

    def listen(_: Any, event: Any) -> None:
        if isinstance(event, core.LoadException):
            dropped.append({"module": event.module_name or "?", "error": describe(event.error)})
            event.cancel_run = False

    pipeline.add_listener(listen)
    try:
        pipeline.load(path)
    except Exception as problem:
        return pipeline, dropped, describe(problem)
    return pipeline, dropped, ""


def incomplete(path: str, count: int) -> str:
    """Return what is missing of a file that was cut off: CellProfiler takes what there is."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        head = file.read(2000)
    declared = re.search(r"^ModuleCount:(\d+)|^    \"module_count\": (\d+)", head, re.MULTILINE)
    wanted = int(declared[1] or declared[2]) if declared else count
    if wanted == count:
        return ""
    return f"it is incomplete: it says it has {wanted} modules, but {count} are in it"


def write(pipeline: Any, path: str) -> str:
    """Write the pipeline that every task will run; return what would be lost, or ``""``."""
    for module in pipeline.modules(False):
        module.notes = []
    with Path(path).open("w", encoding="utf-8") as file:
        pipeline.dump(file, save_image_plane_details=False)
    again, dropped, error = load(path)
    if error or dropped:
        return f"CellProfiler cannot load what it wrote itself: {error or dropped[0]['error']}"
    kept = {module.module_num: described(module) for module in again.modules(False)}
    for module in pipeline.modules(False):
        before, after = described(module), kept.get(module.module_num, [])
        if before != after:
            lost = [value for value in before if value not in after]
            return f"CellProfiler does not keep {module.module_name} when it writes it: {lost[:1]}"
    return ""


def described(module: Any) -> "list[str]":
    """Return what a module does: its name, whether it is enabled, and its settings' values."""
    head = [module.module_name, str(bool(module.enabled))]
    return head + [str(setting.unicode_value) for setting in module.settings()]


def needs_java(path: str) -> bool:
    """Whether metadata is looked up in Java: where images do not come from LoadData."""
    return "NamesAndTypes" in Path(path).read_text(encoding="utf-8", errors="replace")


def images_read(module: Any) -> "list[str]":
    """Return the names of the images that a module asks for."""
    subscribers = import_module("cellprofiler_core.setting.subscriber")
    names = []
    for setting in module.visible_settings():
        if isinstance(setting, subscribers.ImageSubscriber):
            names.append(str(setting.value))
        elif isinstance(setting, subscribers.ImageListSubscriber):
            names += map(str, setting.value)
    return [name for name in dict.fromkeys(names) if name not in ("", "None", "Leave blank")]


def describe(error: BaseException) -> str:
    """Return an exception's text, or its name where it has none."""
    return str(error) or type(error).__name__


def found(module: Any, error: BaseException) -> "dict[str, Any]":
    """Return one finding about a module."""
    return {"module": module.module_name, "number": module.module_num, "error": describe(error)}


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules are no part of CellProfiler
    main()
    # no thread of CellProfiler's may keep the process alive
    import os

    os._exit(0)
