"""Commands that need no running portal: help, check, schema, render, systemd, the script."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.cli import COMMANDS, Commands, cli
from hub.cli.logs import log_file
from hub.cli.systemd import unit
from hub.cli.up import follow_lab_file
from hub.environments import toolchain
from hub.labfile import read
from hub.labfile.schema import Settings
from hub.state.environments_link import is_here, link_environments
from hub.state.paths import Paths
from labkit.base.ports import free_port
from tests.conftest import needs_root
from tests.support.cli_portal import LABHUB, run
from tests.support.portal import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "cli.md"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment whose portal has never run; the hub's Python is the tests' own."""
    envs = tmp_path / "envs"
    envs.mkdir()
    (envs / "hub").symlink_to(sys.prefix)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LABHUB")}
    return {**kept, "LABHUB_STATE": str(tmp_path / "state"), "LABHUB_ENVS": str(envs)}


def all_commands() -> Iterator[tuple[str, ...]]:
    yield ()
    for name in COMMANDS:
        yield (name,)
    for name in ("add", "passwd", "remove", "list"):
        yield ("user", name)
    for name in ("add", "remove", "list", "status"):
        yield ("app", name)


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    if words != ("user",):
        assert "Example" in result.output


def test_the_reference_page_is_current() -> None:
    from hub.cli.reference import markdown

    assert PAGE.read_text() == markdown(), "write it anew: python -m hub.cli.reference"


def test_the_list_of_commands_says_what_each_does_itself() -> None:
    group = cli
    assert isinstance(group, Commands)
    import click

    with click.Context(group) as context:
        for name, (_, text) in COMMANDS.items():
            command = group.get_command(context, name)
            assert command is not None
            assert text.endswith(".")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("up", "--force"),
        ("restart", "everything"),
        ("user", "add"),
        ("logs", "-n", "x"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_so(words: tuple[str, ...], env: dict[str, str]) -> None:
    done = run(*words, env=env)
    assert done.returncode == 2, done.stderr
    assert "Error:" in done.stderr
    assert not Path(env["LABHUB_STATE"]).exists()


def test_a_mistyped_command_is_corrected(env: dict[str, str]) -> None:
    assert "Did you mean 'status'?" in run("statsu", env=env).stderr


TEN = """\
lab: {name: ""}
url: http://lab.example.org
listen: somewhere
isolaton: path
authentication: {method: magic}
admins: [Ada]
profiles:
  - {name: Big One, title: Big, memory: 2 elephants, cpu: 0}
culling: {idle: soon}
local: {hub_port: 70000}
"""


def test_check_names_ten_mistakes_at_once_with_their_lines(
    env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "ten.yaml"
    file.write_text(TEN)
    done = run("check", "--config", str(file), "--json", env=env)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    places = [problem["where"] for problem in found["problems"]]
    assert len(places) >= 10, places
    assert {int(m[1]) for p in places if (m := re.match(r"ten.yaml:(\d+)", p))} >= {
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        9,
        10,
    }
    assert "did you mean isolation?" in done.stdout
    plain = run("check", "--config", str(file), env=env)
    assert "10 problems" in plain.stdout or "11 problems" in plain.stdout
    assert not Path(env["LABHUB_STATE"]).exists(), "check changes nothing"


def test_check_finds_what_is_wrong_with_the_machine(env: dict[str, str], tmp_path: Path) -> None:
    key = tmp_path / "lab.key"
    key.write_text("no pem")
    key.chmod(0o644)
    port, other = free_port(), free_port()
    file = tmp_path / "machine.yaml"
    file.write_text(
        f"lab: {{logo: {tmp_path}/none.svg}}\n"
        f"url: https://localhost:{port}\n"
        f"tls: {{certificate: {tmp_path}/none.crt, key: {key}}}\n"
        "admins: [nobody-of-this-name]\n"
        "profiles: [{name: a, title: A, environment: moon}]\n"
        f"storage: {{shared: [{{path: {tmp_path}/none}}]}}\n"
        f"local: {{hub_port: {other}, proxy_api_port: {other}}}\n"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen(1)
        done = run("check", "--config", str(file), env=env)
    assert done.returncode == 1
    for text in (
        "lab.logo:",
        "tls.certificate:",
        "is no PEM file",
        "everybody can read",
        "there is no environment 'moon'",
        f"port {other} is also local.hub_port",
        f"port {port} of 127.0.0.1 cannot be used: in use",
        "storage.shared",
    ):
        assert text in done.stderr, (text, done.stderr)


def test_check_refuses_a_sample_secret(env: dict[str, str]) -> None:
    secrets = Path(env["LABHUB_STATE"]) / "secrets"
    secrets.mkdir(parents=True)
    for name, value in (("cookie_secret", "change-me"), ("proxy_token", "ab" * 32)):
        (secrets / name).write_text(value)
        (secrets / name).chmod(0o600)
    done = run("check", env=env)
    assert done.returncode == 1
    for name in ("cookie_secret", "proxy_token"):
        assert re.search(rf"{name}: is no secret", done.stderr)
    assert "abab" not in done.stderr


def test_schema_is_the_committed_one(env: dict[str, str]) -> None:
    done = run("schema", env=env)
    assert done.stdout == read.json_schema()
    assert json.loads(done.stdout)["title"] == "Labhub's lab file"


def test_commands_that_need_a_portal_say_so(env: dict[str, str]) -> None:
    for words in (("restart",), ("login",), ("user", "list"), ("backup",)):
        done = run(*words, env=env)
        assert done.returncode == 1, words
        assert "labhub up" in done.stderr, words
    status = run("status", "--json", env=env)
    assert status.returncode == 1
    assert json.loads(status.stdout)["ok"] is False


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b", "build-../../x", ""]
)
def test_a_log_is_never_outside_the_log_folder(name: str, tmp_path: Path) -> None:
    paths = Paths(state=tmp_path, envs=tmp_path / "envs")
    assert tmp_path / "log" in log_file(paths, name).resolve().parents


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("needs systemd-analyze")
    paths = Paths(state=tmp_path / "the state", envs=tmp_path / "50%")
    for folder in (paths.run, paths.envs):
        folder.mkdir(parents=True)
    file = tmp_path / "labhub.service"
    file.write_text(unit(paths, "Our\nlab %n $HOME"))
    done = subprocess.run([verify, "verify", "--man=no", file], capture_output=True, text=True)
    mine = [line for line in done.stderr.splitlines() if "labhub.service" in line]
    assert mine == []
    text = file.read_text()
    assert "Delegate=yes" in text
    assert "KillMode=process" in text
    assert len([line for line in text.splitlines() if line.startswith("Description=")]) == 1


def test_the_unit_leaves_to_the_lab_file_where_the_environments_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABHUB_ENVS", raising=False)
    monkeypatch.setenv("SLURM_CONF", "/opt/slurm/etc/slurm.conf")
    link_environments(Paths.from_environment(), tmp_path / "shared" / "envs")
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "shared" / "envs"))  # as an older unit had it
    text = unit(Paths.from_environment(), "Our lab")
    assert "LABHUB_ENVS" not in text
    assert '"SLURM_CONF=/opt/slurm/etc/slurm.conf"' in text
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "other"))
    assert f'"LABHUB_ENVS={tmp_path / "other"}"' in unit(Paths.from_environment(), "Our lab")


def test_every_command_finds_the_environments_that_the_lab_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built before moves or is left: there is never a second installation."""
    monkeypatch.setenv("LABHUB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABHUB_ENVS", raising=False)
    before = Paths.from_environment()
    for name in ("hub", "notebook"):
        (before.envs / name / "bin").mkdir(parents=True)
    shared = tmp_path / "shared" / "envs"
    assert is_here(shared)
    assert not is_here(Path("/no-such-mount/envs"))
    link_environments(before, shared)
    after = Paths.from_environment()
    assert after.envs == shared
    assert (before.envs / "hub" / "bin").is_dir(), "this very program may run from it"
    assert not (shared / "notebook").exists(), "it names its old place, which no node has"
    assert (before.state / "envs.before" / "notebook").is_dir()
    link_environments(after, shared)
    link_environments(after, tmp_path / "moved")
    assert Paths.from_environment().envs == tmp_path / "moved"


def test_up_keeps_to_the_lab_file_and_begins_again_with_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABHUB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("LABHUB_ENVS", raising=False)
    shared = tmp_path / "shared"
    section = {"partitions": ["main"], "hub_host": "head", "environments": str(shared)}
    settings = Settings.model_validate({"target": "slurm", "slurm": section})
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, words: calls.append(words))
    follow_lab_file(settings, Paths.from_environment())
    assert len(calls) == 1
    follow_lab_file(settings, Paths.from_environment())
    assert len(calls) == 1, "it is there now"
    monkeypatch.setenv("LABHUB_ENVS", str(tmp_path / "other"))
    follow_lab_file(settings, Paths.from_environment())
    assert len(calls) == 1, "check tells of it"
    assert (tmp_path / "state" / "envs").readlink() == shared


def test_the_script_is_plain_sh() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck")
    for script in (LABHUB, REPOSITORY / ".ci" / "run"):
        subprocess.run([shellcheck, script], check=True)


def tools(tmp_path: Path, *without: str) -> str:
    """A PATH with what the script uses, but for some."""
    folder = tmp_path / "bin"
    folder.mkdir()
    used = "sh dirname readlink id getent cut sha256sum grep setpriv bwrap nft ip"
    for name in used.split():
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found and name not in without:
            (folder / name).symlink_to(found)
    return str(folder)


@needs_root
def test_what_the_system_lacks_is_named_in_one_message(env: dict[str, str], tmp_path: Path) -> None:
    env["PATH"] = tools(tmp_path, "bwrap", "ip")
    if not (REPOSITORY / "labhub").exists() or Path("/sbin/ip").exists():
        expected = ["bubblewrap"]
    else:
        expected = ["bubblewrap", "iproute2"]
    done = run("up", env=env)
    assert done.returncode == 1
    assert f"apt-get install -y {' '.join(expected)}\n" in done.stderr
    assert not Path(env["LABHUB_STATE"]).exists()


def test_the_script_works_by_a_link_and_from_a_hostile_folder(
    env: dict[str, str], tmp_path: Path
) -> None:
    """A folder that others write to must not be imported from."""
    link = tmp_path / "labhub"
    link.symlink_to(LABHUB)
    for name in ("hub", "json", "secrets", "click"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(66)")
    done = subprocess.run([link, "schema"], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    env["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run([link, "schema"], cwd="/", env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_root
def test_a_python_that_others_cannot_run_is_not_chosen(tmp_path: Path) -> None:
    """As root: one in a closed home is passed over for the system's."""
    text = LABHUB.read_text()
    functions = text[text.index("usable()") : text.index("# An environment that is a link")]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (closed / "python3").chmod(0o755)
    script = f"set -eu\n{functions}\nusable {closed}/python3 && echo closed\nfind_python"
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False).stdout
    assert "closed" not in out
    chosen = out.strip()
    nobody = pwd.getpwnam("nobody")
    subprocess.run([chosen, "-c", ""], user=nobody.pw_uid, group=nobody.pw_gid, check=True)


def test_pips_settings_reach_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://files.example/simple\ncert = /a.pem\n")
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_", "SSL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    python = Path(shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable)
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("needs a Python with pip")
    found = toolchain.uv_settings(python)
    assert found["UV_DEFAULT_INDEX"] == "https://files.example/simple"
    assert found["SSL_CERT_FILE"] == "/a.pem"
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    found = toolchain.uv_settings(python)
    assert found["UV_DEFAULT_INDEX"] == "https://variable.example/simple"
    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    assert "UV_DEFAULT_INDEX" not in toolchain.uv_settings(python), "uv's own say wins"
