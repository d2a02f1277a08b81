"""The worker's own copy in each run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

# What a run folder holds of labkit, by package; all of its modules where none are named.
_COPIED: dict[str, tuple[str, ...]] = {
    "labkit.jobs.worker": (),
    "labkit.base": ("cgroups.py", "files.py", "process_tree.py", "remote.py", "units.py"),
}
# What fetches inputs from S3, where a task has any; it is run by a Python that has boto3.
_FETCHER: dict[str, tuple[str, ...]] = {
    "labkit.storage": (),
    "labkit.base": ("files.py", "problems.py", "units.py"),
}


def write(place: Path) -> None:
    """Copy it, so that a node needs nothing but Python and an update changes nothing."""
    _copy(_COPIED, place, "from labkit.jobs.worker.main import main", "main()")


def write_fetcher(place: Path, addresses: Sequence[str]) -> None:
    """Copy what fetches inputs from S3, where there are any.

    Parameters
    ----------
    place : Path
        Where to.
    addresses : sequence of str
        The inputs.
    """
    if addresses:
        start = "import sys\n\nfrom labkit.storage.fetching import main"
        _copy(_FETCHER, place, start, "main(sys.argv[1:])")


def _copy(packages: Mapping[str, tuple[str, ...]], place: Path, imports: str, run: str) -> None:
    for package, modules in packages.items():
        target = place.joinpath(*package.split("."))
        target.mkdir(parents=True)
        for module in resources.files(package).iterdir():
            if module.name in modules or (not modules and module.name.endswith(".py")):
                (target / module.name).write_bytes(module.read_bytes())
        for parent in target.relative_to(place).parents:
            if parent.name:
                (place / parent / "__init__.py").touch()
        (target / "__init__.py").touch()
    (place / "__main__.py").write_text(f"{imports}\n\nraise SystemExit({run})\n")
