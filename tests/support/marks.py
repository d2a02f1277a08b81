"""What a test needs, as a mark: found from its fixtures and its folder, asked by ``-m``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from functools import cache
from pathlib import PurePath

import pytest

from labkit.testing import kubernetes
from labkit.testing.machine import missing_programs
from tests.support.portal import built_envs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# A fixture that is in use anywhere below a test -> what that test needs.
BY_FIXTURE = {
    "people": "root",
    "portal": "root",
    "slurm": "slurm",
    "slurm_cluster": "slurm",
    "kubernetes": "k8s",
    "chromium": "browser",
    "aws": "aws",
    "bucket": "aws",
    "s3": "aws",
}
# A folder of tests/ -> what all tests in it need.
BY_FOLDER = {"browser": "browser", "slurm": "slurm", "k8s": "k8s", "aws": "aws"}
# With one of these a test is no unit test: it takes long, or more than the Python of dev.
HEAVY = frozenset({"root", "slurm", "browser", "k8s", "aws", "environment", "slow"})


def implied(
    folders: Collection[str], fixtures: Collection[str], marks: Collection[str]
) -> set[str]:
    """Return the marks that follow from where a test is and what it uses.

    Parameters
    ----------
    folders : collection of str
        The folders between ``tests/`` and its file.
    fixtures : collection of str
        All fixtures that it uses, also by way of others.
    marks : collection of str
        The marks that it carries already.

    Returns
    -------
    set of str
        ``unit`` where nothing says that it is heavier.
    """
    found = {mark for name, mark in BY_FIXTURE.items() if name in fixtures}
    found |= {mark for name, mark in BY_FOLDER.items() if name in folders}
    return found if HEAVY & (found | set(marks)) else found | {"unit"}


def lacking(mark: pytest.Mark) -> str:
    """Return what this machine lacks for a marked test; empty where it has all."""
    if mark.name == "root" and os.geteuid() != 0:
        return "needs root (Unix accounts, namespaces)"
    if mark.name == "browser" and CHROMIUM is None:
        return "needs chromium"
    if mark.name == "slurm" and (missing := _slurm()):
        return f"needs SLURM ({missing})"
    if mark.name == "k8s" and (missing := _kubernetes()):
        return f"Kubernetes {missing}"
    if mark.name == "environment" and not (built_envs() / mark.args[0]).exists():
        return f"needs the environment {mark.args[0]!r} (labhub test makes it)"
    return ""


@cache
def _slurm() -> str:
    return missing_programs()


@cache
def _kubernetes() -> str:
    return kubernetes.missing()


def apply(item: pytest.Item, tests: PurePath) -> None:
    """Give a collected test its marks, and skip it where this machine lacks something."""
    fixtures = getattr(item, "fixturenames", ())
    carried = {mark.name for mark in item.iter_markers()}
    for name in sorted(implied(item.path.relative_to(tests).parts[:-1], fixtures, carried)):
        item.add_marker(name)
    for mark in item.iter_markers():
        if reason := lacking(mark):
            item.add_marker(pytest.mark.skip(reason=reason))
            return
