"""The one rule of sudo: what the hub's own account may do as somebody else, and what not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.labfile.schema import Settings
from hub.slurm.checks import sudoers
from hub.slurm.owner import HELPER, SUDO, sudo_command
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
env = {"SLURM_CONF": conf, "PATH": "/usr/bin:/bin", "TOKEN": "its-secret"}
words = ["--parsable", "--output=out.log", f"--chdir={account.home}", "--export=ALL"]
script = "#!/bin/sh\\nid -un\\necho token=$TOKEN\\nsleep 600\\n"
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


def test_the_rule_names_one_program_and_one_group(hub: str) -> None:
    text = sudoers(Settings(), hub)
    (rule,) = [line for line in text.splitlines() if line.startswith(hub)]
    assert rule == f"{hub} ALL=(%{UNIX_GROUP}) NOPASSWD: NOSETENV: LABHUB_JOBS"
    assert "*" not in text.replace("#", "")


@pytest.mark.parametrize("name", ["ALL", "a b", "%wheel", "x,root", "x\nroot ALL=(ALL) ALL"])
def test_a_strange_account_makes_no_rule(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        sudoers(Settings(), name)
