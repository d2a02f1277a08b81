"""``./labhub`` itself with target slurm: check, up, a server, doctor, down."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.testing import SlurmCluster
from tests.conftest import needs_env, needs_root
from tests.support.cli_portal import LABHUB, LabhubPortal, eventually
from tests.support.portal import REPOSITORY, SUPPORT
from tests.support.slurm_portal import needs_slurm, own_address

pytestmark = [needs_root, needs_slurm, needs_env("proxy"), pytest.mark.slow]


ASK_APP = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from labkit.portal.client import AppClient
class Told(AppClient):
    app, api, what = "testapp", "", "the test app"
print(dict(Told.from_environment().ask("GET", "told")["headers"])["x-labhub-user"])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster(nodes=1) as running:
        yield running


@pytest.fixture(scope="module")
def portal(cluster: SlurmCluster, ada: str) -> Iterator[LabhubPortal]:
    made = LabhubPortal({"target": "slurm", "groups": {"imaging": [ada]}})
    made.env |= cluster.environment
    made.lab["slurm"] = {
        "partitions": ["main"],
        "hub_host": own_address(),
        "environments": str(made.envs),
    }
    made.write_lab()
    try:
        yield made
    finally:
        made.close()


def page_commands() -> list[str]:
    """The commands of docs/how-to/slurm.md, in its order."""
    text = (REPOSITORY / "docs" / "how-to" / "slurm.md").read_text()
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"^    ((?:sudo|\./labhub) .*)$", text, re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in lines]


def test_every_command_of_the_page_from_an_empty_machine_to_its_end(
    portal: LabhubPortal, cluster: SlurmCluster, ada: str, tmp_path: Path
) -> None:
    """A new administrator who follows docs/how-to/slurm.md word for word."""
    lab_file, rule = portal.folder / "lab.yaml", tmp_path / "labhub"
    ours = (portal.state / "lab.yaml").read_text()
    (portal.state / "lab.yaml").unlink()
    here = {
        "./labhub": str(LABHUB),
        "/etc/labhub/lab.yaml": str(lab_file),
        "/tmp/labhub": str(rule),
        "/etc/sudoers.d": str(tmp_path / "sudoers.d"),
        " ada ": f" {ada} ",
    }
    (tmp_path / "sudoers.d").mkdir()
    said: dict[str, str] = {}
    for line in page_commands():
        words = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], line)
        words = words.removeprefix("sudo ")
        yes = {"slurm stop": " --yes"}.get(" ".join(words.split()[1:3]), "")
        done = subprocess.run(
            words + yes,
            shell=True,
            cwd=REPOSITORY,
            env={**portal.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
            capture_output=True,
            text=True,
            check=False,
        )
        said[line] = done.stdout + done.stderr
        assert done.returncode == 0 or "doctor" in line, said[line]
        if line.startswith("sudo install -D"):
            lab_file.write_text(ours)  # what the page asks for: edit it
        if "labhub up" in line:
            portal.labhub("app", "add", str(SUPPORT / "testapp"))
            portal.spawn(ada)
    assert f"{lab_file}: no problem" in said[next(line for line in said if " check " in line)]
    node = said["sudo ./labhub doctor --node"]
    assert "this host reaches node1" in node, node
    assert f":{portal.hub_port}/hub/api answers" in node
    assert f":{portal.gate_port} answers" in node
    assert "SLURM_CONF=" in said["sudo ./labhub systemd"]
    assert "Delegate=yes" in said["sudo ./labhub systemd"]
    assert ada in said["sudo ./labhub slurm list"]
    assert "runs" in said["sudo ./labhub slurm list"]
    assert f"{ada}: 2h more" in said["sudo ./labhub slurm extend ada 2h"]
    assert "no job without its hub" in said["sudo ./labhub slurm orphans"]
    assert "parsed OK" in said["sudo visudo -cf /tmp/labhub"]
    assert (portal.state / "envs").readlink() == portal.envs, "no command needs LABHUB_ENVS now"

    assert portal.run(ada, "import getpass; print(getpass.getuser())").strip() == ada
    assert cluster.command("squeue", "-h", "-o", "%u") == ada
    # A server on a node reaches the lab's apps, by labkit's own client.
    assert portal.run(ada, ASK_APP).strip() == ada
    portal.labhub("restart", "hub")
    assert portal.run(ada, "print('goes on')").strip() == "goes on"
    portal.labhub("down", "--yes")
    eventually(lambda: not cluster.queue())


def test_check_names_what_the_cluster_lacks(portal: LabhubPortal) -> None:
    portal.lab["slurm"]["partitions"] = ["main", "nowhere"]
    (portal.state / "lab.yaml").unlink(missing_ok=True)  # the link to the lab file of above
    portal.write_lab()
    done = portal.labhub("check", ok=False)
    assert "the cluster has no partition nowhere" in done.stderr
    assert "it has: main" in done.stderr
