"""Run a program of this package, here or in a run folder: ``python -I <folder> align task.json``.

An environment of a node has no labkit: the folder alone must be enough.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    package = Path(__file__).resolve().parent
    sys.path[0] = str(package.parent)
    name, request_file = sys.argv[1:]
    program = import_module(f"{package.name}.{name}")
    import_module(f"{package.name}.request").serve(program.main, Path(request_file))
