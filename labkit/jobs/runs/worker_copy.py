"""The worker's own copy in each run folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

# What a run folder holds of labkit, by package; all of its modules where none are named.
_COPIED: dict[str, tuple[str, ...]] = {
    "labkit.jobs.worker": (),
    "labkit.base": ("cgroups.py", "files.py", "process_tree.py", "units.py"),
}


def write(place: Path) -> None:
    """Copy it, so that a node needs nothing but Python and an update changes nothing."""
    for package, modules in _COPIED.items():
        target = place.joinpath(*package.split("."))
        target.mkdir(parents=True)
        for module in resources.files(package).iterdir():
            if module.name in modules or (not modules and module.name.endswith(".py")):
                (target / module.name).write_bytes(module.read_bytes())
    for package in ("labkit", "labkit/jobs", "labkit/base"):
        (place / package / "__init__.py").touch()
    (place / "__main__.py").write_text(
        "from labkit.jobs.worker.main import main\n\nraise SystemExit(main())\n"
    )
