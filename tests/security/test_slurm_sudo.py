"""The one rule of sudo: what the hub's own account may do as somebody else, and what not."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyterhub import spawner

from hub.labfile.schema import Settings
from hub.slurm import as_user, certificates
from hub.slurm.checks import sudoers
from hub.slurm.owner import HELPER, SUDO, sudo_command
from hub.spawners import base, slurm
from labkit.slurm.commands import environment, find
from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.support.portal import UNIX_GROUP, People
from tests.support.slurm_portal import needs_slurm, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
OPEN = all(path.stat().st_mode & 0o005 == 0o005 for path in HELPER.parents)
pytestmark = [
    needs_root,
    needs_slurm,
    pytest.mark.skipif(not Path(SUDO).exists(), reason="needs sudo"),
    pytest.mark.skipif(not OPEN, reason="needs the repository where every user can read it"),
]


@pytest.fixture(scope="module")
def hub(people: People) -> Iterator[str]:
    """An account for the hub, with the rule."""
    name = people.add("hub", member=False)
    text = sudoers(Settings(), name)
    file = Path(f"/etc/sudoers.d/labhub-test-{people.prefix}")
    file.write_text(text)
    file.chmod(0o440)
    try:
        subprocess.run(["visudo", "-cf", str(file)], check=True, capture_output=True)
        yield name
    finally:
        file.unlink()


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster(nodes=1) as running:
        yield running


def as_hub(
    hub: str, *words: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["setpriv", f"--reuid={hub}", f"--regid={hub}", "--init-groups", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        timeout=60,
    )


CODE = """
import asyncio, sys
from hub.slurm.commands import Account
from hub.slurm.owner import as_owner, read_tail
user, conf = sys.argv[1:]
account = Account.of(user)
env = {"SLURM_CONF": conf, "PATH": "/usr/bin:/bin", "JPY_API_TOKEN": "its-secret"}
words = ["--parsable", "--output=out.log", f"--chdir={account.home}", "--export=ALL"]
script = "#!/bin/sh\\nid -un\\necho token=$JPY_API_TOKEN\\nsleep 600\\n"
job = asyncio.run(as_owner(account, "sbatch", words, env=env, stdin=script)).strip()
print(job)
"""


def test_the_hub_submits_as_a_member_and_its_secrets_stay_out_of_sight(
    hub: str, cluster: SlurmCluster, ada: str
) -> None:
    env = {**cluster.environment, "PYTHONPATH": str(REPOSITORY)}
    done = as_hub(hub, sys.executable, "-c", CODE, ada, str(cluster.conf), env=env)
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    log = Path(f"/home/{ada}/out.log")
    wait_for(lambda: log.exists() and "token=its-secret" in log.read_text())
    assert log.read_text().startswith(ada)
    assert cluster.command("squeue", "-h", "-j", job, "-o", "%u").strip() == ada
    order = {
        "command": ["/usr/bin/scancel", "--", job],
        "env": {**cluster.environment, "PATH": "/usr/bin:/bin"},
        "stdin": "",
    }
    words = [SUDO, "-n", "-u", ada, "--", *sudo_command()]
    assert as_hub(hub, *words, stdin=json.dumps(order)).returncode == 0
    wait_for(lambda: not cluster.queue())


def test_nothing_else_is_allowed(hub: str, ada: str, people: People) -> None:
    stranger = people.add("stranger", member=False)
    helper = sudo_command()
    refused = {
        "another program": ["-u", ada, "--", "/bin/sh", "-c", "id"],
        "as root": ["--", *helper],
        "as root by name": ["-u", "root", "--", *helper],
        "as root by number": ["-u", "#0", "--", *helper],
        "as one who is no member": ["-u", stranger, "--", *helper],
        "with root's group": ["-u", ada, "-g", "root", "--", *helper],
        "with an argument": ["-u", ada, "--", *helper, "more"],
        "with other options of Python": ["-u", ada, "--", helper[0], helper[-1]],
        "another text": ["-u", ada, "--", *helper[:-1], "/tmp/as_user.py"],
        "with own variables": ["-u", ada, "PYTHONPATH=/tmp", "--", *helper],
        "a shell": ["-u", ada, "-s"],
        "editing": ["-u", ada, "-e", "/etc/hosts"],
    }
    for what, words in refused.items():
        done = as_hub(hub, SUDO, "-n", *words, stdin="{}")
        assert "password is required" in done.stderr or "not allowed" in done.stderr, (
            what,
            done,
        )


@pytest.mark.parametrize(
    "command",
    [
        ["/bin/sh", "-c", "id"],
        ["/usr/bin/env", "sbatch"],
        ["sbatch"],
        ["/tmp/labhub-test/sbatch"],
        ["/usr/bin/../../bin/sh"],
    ],
    ids=str,
)
def test_the_helper_starts_slurms_programs_only(hub: str, ada: str, command: list[str]) -> None:
    own = Path("/tmp/labhub-test")
    own.mkdir(exist_ok=True)
    try:
        (own / "sbatch").write_text("#!/bin/sh\nid\n")
        (own / "sbatch").chmod(0o777)
        order = json.dumps({"command": command, "env": {}, "stdin": ""})
        done = as_hub(hub, SUDO, "-n", "-u", ada, "--", *sudo_command(), stdin=order)
        assert done.returncode != 0
        assert "uid=" not in done.stdout
    finally:
        (own / "sbatch").unlink()
        own.rmdir()


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_AUDIT",
        "GCONV_PATH",
        "SBATCH_EXPORT",
        "SLURM_HINT",
        "BASH_ENV",
        "lab_x",
        "",
    ],
)
def test_no_variable_brings_code_or_options(hub: str, ada: str, name: str) -> None:
    order = {"command": [find("tail"), "-c", "1", "--", "/etc/passwd"], "env": {}, "stdin": ""}
    words = [SUDO, "-n", "-u", ada, "--", *sudo_command()]
    order["env"] = {"LAB_SHELF": "3", "PATH": "/usr/bin:/bin"}
    assert as_hub(hub, *words, stdin=json.dumps(order)).returncode == 0
    order["env"] = {name: "/tmp/evil.so"}
    done = as_hub(hub, *words, stdin=json.dumps(order))
    assert done.returncode == 77
    assert f"the variable {name!r} is not handed" in done.stderr


def test_a_configuration_of_the_callers_is_refused(tmp_path: Path) -> None:
    """Its PluginDir would be loaded by sbatch, as the user."""
    caller, system = 4711, 999
    places = {}
    for name, uid, mode in (
        ("own", caller, 0o644),
        ("persons", 1000, 0o644),
        ("open", 0, 0o666),
        ("slurms", system, 0o644),
    ):
        places[name] = Path(tempfile.mkdtemp(dir="/var/tmp")) / "slurm.conf"
        places[name].touch()
        os.chown(places[name], uid, uid)
        places[name].chmod(mode)
    (tmp_path / "link").symlink_to(places["own"])
    try:
        for name, words in (
            ("own", "belongs neither"),
            ("persons", "belongs neither"),
            ("open", "others may write"),
        ):
            assert words in as_user.problem({"SLURM_CONF": str(places[name])}, caller)
        assert "belongs neither" in as_user.problem({"SLURM_CONF": str(tmp_path / "link")}, caller)
        assert "absolute" in as_user.problem({"SLURM_CONF": "slurm.conf"}, caller)
        assert "cannot be read" in as_user.problem({"SLURM_CONF": "/nowhere/slurm.conf"}, caller)
        assert not as_user.problem({"SLURM_CONF": str(places["slurms"])}, caller)
        assert "belongs neither" in as_user.problem({"SLURM_CONF": str(places["slurms"])}, system)
        places["slurms"].parent.chmod(0o777)
        assert "others may write" in as_user.problem({"SLURM_CONF": str(places["slurms"])}, caller)
    finally:
        for place in places.values():
            shutil.rmtree(place.parent)


def test_a_servers_variables_are_handed_on() -> None:
    """All that JupyterHub and the portal say to a server; a new one must be listed."""
    said = {
        *re.findall(r"env\[[\"']([A-Z_]+)[\"']\] =", inspect.getsource(spawner)),
        *re.findall(r"env\[\"([A-Z_]+)\"\] =", inspect.getsource(base)),
        *re.findall(r"env\[\"([A-Z_]+)\"\] =", inspect.getsource(slurm)),
        *base.THREADS,
        *environment(),
        certificates.VARIABLE,
    } - {"SLURM_CONF"}
    assert len(said) > 30
    assert not as_user.problem(dict.fromkeys(said, "x"), 1000)


def test_the_rule_names_one_program_and_one_group(hub: str) -> None:
    text = sudoers(Settings(), hub)
    (rule,) = [line for line in text.splitlines() if line.startswith(hub)]
    assert rule == f"{hub} ALL=(%{UNIX_GROUP}) NOPASSWD: NOSETENV: LABHUB_JOBS"
    assert "*" not in text.replace("#", "")


@pytest.mark.parametrize("name", ["ALL", "a b", "%wheel", "x,root", "x\nroot ALL=(ALL) ALL"])
def test_a_strange_account_makes_no_rule(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        sudoers(Settings(), name)
