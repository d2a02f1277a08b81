"""Run the gather, here or in a run folder: ``python -I <folder> RUN OUT MEMORY``.

The folder alone must be enough: the environment may have another labkit, or none.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    package = Path(__file__).resolve().parent
    sys.path[0] = str(package.parent)
    run, out, memory = sys.argv[1:]
    raise SystemExit(
        import_module(f"{package.name}.gather.gather").command(Path(run), Path(out), int(memory))
    )
