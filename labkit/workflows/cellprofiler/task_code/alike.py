"""Make all CellProfiler processes of a job alike, on every node. Standard library only.

What CellProfiler writes depends on more than pipeline and images: it passes image names through
sets, whose order follows Python's hash seed, and OpenBLAS adds up in another order with another
number of threads.
"""

from __future__ import annotations

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM", "BLIS")

#: Environment variables of every CellProfiler process, over those that are there.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",  # also where the node lacks the locale
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    **{f"{name}_NUM_THREADS": "1" for name in _THREADS},
}
