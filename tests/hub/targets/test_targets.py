"""Targets are objects: nobody else compares their names, and a third one needs no other change."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from hub import auth, targets
from hub.apps import gate_file
from hub.cli.render import render
from hub.environments import rstudio
from hub.labfile.read import parse
from hub.labfile.schema import Settings
from hub.portal import cards, culling
from hub.portal.configure import configure
from hub.portal.control import Control
from hub.runtime import doctor, preflight, run, supervise
from hub.state import create
from hub.state.paths import REPOSITORY, Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_env, needs_root
from tests.hub.targets.tiny import APPS, TinySpawner
from tests.support.portal import People, Portal

NAMES = {"local", "slurm", "eks"}
# Who may know one target by name: the objects, the lab file, and each one's own parts.
MAY_NAME = ("hub/targets/", "hub/labfile/")
MAY_READ = {
    "slurm": ("hub/slurm/", "hub/spawners/", "hub/deploy/"),
    "eks": (),
}
LAB = """
target: eks
eks: {images: registry.example/labhub}
profiles:
  - {name: stub, title: Stub, environment: stub}
  - {name: other, title: Other, environment: elsewhere}
"""


# -- nobody compares names ---------------------------------------------------------------


def offences(place: str, tree: ast.AST) -> Iterator[str]:
    """Yield where a module asks a lab file which target it has, instead of the target."""
    for node in ast.walk(tree):
        line = f"{place}:{getattr(node, 'lineno', 0)}"
        if place.startswith(MAY_NAME):
            continue
        if isinstance(node, ast.Attribute) and node.attr == "target":
            yield f"{line} reads .target"
        sections = MAY_READ.get(node.attr) if isinstance(node, ast.Attribute) else None
        if sections is not None and not place.startswith(sections):
            yield f"{line} reads the section {node.attr}"  # type: ignore[attr-defined]
        values: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            values = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            values = [node.value]
        for value in [*values]:
            values += value.elts if isinstance(value, ast.Tuple | ast.List | ast.Set) else []
        for value in values:
            if isinstance(value, ast.Constant) and value.value in NAMES:
                yield f"{line} decides by {value.value!r}"


def test_no_module_decides_by_the_targets_name() -> None:
    modules = [path for top in ("hub", "services") for path in (REPOSITORY / top).rglob("*.py")]
    assert len(modules) > 150
    found = [
        offence
        for path in modules
        for offence in offences(str(path.relative_to(REPOSITORY)), ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "if settings.target == 'slurm': pass",
        "a = kind in ('local', 'eks')",
        "{'slurm': 1}[settings.target]",
        "match kind:\n    case 'eks': pass",
        "x = settings.target",
        "if settings.slurm: pass",
        "self.settings.eks.images",
    ],
)
def test_such_a_decision_is_seen(text: str) -> None:
    assert list(offences("hub/portal/new.py", ast.parse(text)))
    assert not list(offences("hub/targets/new.py", ast.parse(text)))


# -- which there are ---------------------------------------------------------------------


def test_a_target_that_this_version_lacks_is_named_by_check(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    (problem,) = [p for p in preflight.problems(parse(LAB), paths) if p.where == "target"]
    assert "no spawner for target 'eks'; it has: local, slurm" in problem.text
    with pytest.raises(ProblemsError, match="no spawner for target 'eks'"):
        targets.of(parse(LAB), paths)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_every_target_has_all_answers(name: str, tmp_path: Path) -> None:
    """What is asked before anything runs, with no cluster at hand."""
    slurm = {"partitions": ["main"], "hub_host": "head", "environments": "/shared/envs"}
    settings = Settings.model_validate({"target": name, "slurm": slurm})
    target = targets.of(settings, Paths(tmp_path, tmp_path))
    assert target.spawner_class.__mro__[-1] is object
    assert target.addresses.hub == "http://127.0.0.1:8081/hub"
    assert target.addresses.gate_url == "http://127.0.0.1:8082"
    assert target.app_runtime.status("none").state == "stopped"
    assert target.brings_environment("notebook") is (name == "slurm")
    assert target.proxy_words() == []
    assert target.rendered().keys() == (
        {"parallelcluster", "sudoers"} if name == "slurm" else set()
    )
    assert target.can_end_servers is (name == "local" and os.geteuid() == 0)


# -- a third one -------------------------------------------------------------------------


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: there are sockets in it."""
    with tempfile.TemporaryDirectory(prefix="tiny-") as folder:
        yield Path(folder)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, short: Path) -> tuple[Settings, Paths]:
    monkeypatch.setitem(targets.TARGETS, "eks", "tests.hub.targets.tiny:TinyTarget")
    monkeypatch.setenv("LABHUB_STATE", str(short / "state"))
    paths = Paths(state=short / "state", envs=short / "envs")
    create.make_folders(paths)
    create.make_secrets(paths)
    paths.lab_file.write_text(LAB)
    return parse(LAB), paths


def test_check_and_doctor_ask_it(tiny: tuple[Settings, Paths]) -> None:
    settings, paths = tiny
    found = preflight.problems(settings, paths)
    assert "is tiny" in [problem.text for problem in found]
    places = {problem.where for problem in found}
    assert "profiles.stub.environment" in places  # nobody brings it
    assert "profiles.other.environment" not in places
    assert "isolation" not in places  # one machine's walls
    assert doctor.examine(settings, paths)[-1].detail == "all two nodes are well"


def test_the_hub_is_configured_by_it(
    tiny: tuple[Settings, Paths], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, paths = tiny
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    c = Config()
    configure(c, settings, paths)
    assert c.JupyterHub.spawner_class is TinySpawner
    assert c.JupyterHub.hub_connect_url == "http://tiny-hub:9"
    assert c.TinySpawner.term_timeout == 7
    runtimes = [
        options["runtime"]
        for _, _, *rest in c.JupyterHub.extra_handlers
        for options in rest
        if "runtime" in options
    ]
    assert runtimes and all(one is APPS for one in runtimes)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (problem,) = auth.problems(
        parse(f"{LAB}authentication: {{method: signup}}"), paths, as_one_account=True
    )
    assert "needs root" in problem.text


def test_the_programs_are_started_by_its_addresses(
    tiny: tuple[Settings, Paths], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, paths = tiny
    monkeypatch.setattr(run, "node_programs", lambda _: ("node", "npm"))
    words = run.command("proxy", settings, paths)
    assert words[-1] == "--tiny"
    addresses = targets.of(settings, paths).addresses
    assert f"--url={addresses.hub}/api" in culling.culler_command(settings, addresses)
    assert gate_file.portal(settings, paths, addresses).internal_host == "tiny-gate:9"
    assert Control(settings, paths)
    text = supervise.render(settings, paths)
    assert "[program:hub]" in text
    assert "[program:app-" not in text  # its apps run elsewhere


def test_what_it_renders_is_a_command(tiny: tuple[Settings, Paths]) -> None:
    done = CliRunner().invoke(render, ["tiny"])
    assert (done.exit_code, done.output) == (0, "nodes of Our lab: 2\n"), done
    other = CliRunner().invoke(render, ["sudoers"])
    assert isinstance(other.exception, ProblemsError)
    assert "there are: settings, supervisor, tiny" in str(other.exception)


def test_pages_take_other_machines_for_what_they_are(
    tiny: tuple[Settings, Paths], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, paths = tiny
    monkeypatch.setattr(rstudio, "rserver", lambda: "")
    with_r = parse(LAB.replace("environment: stub", "environment: r"))
    assert "RStudio" in [card.title for card in cards.cards(with_r, paths, ())]


class TinyPortal(Portal):
    """A whole portal whose hub knows the tiny target."""

    def start_hub(self, wait: bool = True) -> None:
        config = Path(__file__).with_name("hub_config.py")
        self._start("hub", [sys.executable, "-m", "jupyterhub", "-f", str(config)])
        if wait:
            self.wait_ready()


@needs_root
@needs_env("proxy")
def test_a_person_starts_and_stops_a_server_on_it(people: People) -> None:
    ada = people.add("tiny")
    lab = {"target": "eks", "eks": {"images": "registry.example/labhub"}}
    with TinyPortal(
        lab, config="c.JupyterHub.hub_connect_url = c.JupyterHub.hub_bind_url\n"
    ) as portal:
        portal.api("POST", f"/users/{ada}")
        wrong = portal.api(
            "POST", f"/users/{ada}/server", json={"profile": "stub", "partition": "middle"}
        )
        assert wrong.status_code == 400
        assert "but in: left, right" in wrong.text
        portal.spawn(ada)
        server = portal.api("GET", f"/users/{ada}").json()["servers"][""]
        assert server["user_options"] == {"profile": "stub", "partition": "left"}
        with portal.browser() as browser:
            assert "Log out" in browser.login(ada).text
            assert browser.get(f"/user/{ada}/api").status_code < 500
        portal.stop_server(ada)
