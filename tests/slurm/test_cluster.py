"""The test cluster itself: it is real SLURM, it can be broken part by part, it leaves nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from labkit.base import process_tree
from labkit.slurm.commands import SlurmUnavailableError
from labkit.testing import ClusterError, SlurmCluster
from tests.conftest import needs_root
from tests.support.job_helpers import until
from tests.support.portal import People


def submit(cluster: SlurmCluster, script: str, *options: str, user: str | None = None) -> str:
    """Submit a script; return the job's number."""
    text = cluster.command(
        "sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script, user=user
    )
    return text.partition(";")[0]


def state(cluster: SlurmCluster, job: str) -> str:
    """Return the state of a job that SLURM still remembers."""
    text = cluster.command("scontrol", "-o", "show", "job", job)
    return next(word[9:] for word in text.split() if word.startswith("JobState="))


def written(path: Path) -> str:
    """Return what is in a file; "" while it is not there."""
    return path.read_text().strip() if path.exists() else ""


def processes(folder: Path) -> list[int]:
    """Return all processes of a cluster."""
    return process_tree.marked("SLURM_CONF", str(folder / "slurm.conf"))


def test_four_nodes_idle(slurm: SlurmCluster) -> None:
    slurm.wait_idle()
    assert slurm.nodes == ("node1", "node2", "node3", "node4")
    assert slurm.command("sinfo", "-h", "-o", "%D %T %c %m %P") == "4 idle 16 16000 main*"


def test_a_job_runs_and_its_end_is_seen(slurm: SlurmCluster, tmp_path: Path) -> None:
    good = submit(slurm, f"echo $SLURMD_NODENAME > {tmp_path}/node")
    bad = submit(slurm, "exit 3")
    until(lambda: not slurm.queue())
    assert (tmp_path / "node").read_text().strip() in slurm.nodes
    assert (state(slurm, good), state(slurm, bad)) == ("COMPLETED", "FAILED")


def test_nobody_outside_the_machine_reaches_it(slurm: SlurmCluster) -> None:
    numbers = {
        line.partition("=")[2].split()[0]
        for line in slurm.command("scontrol", "show", "config").splitlines()
        if line.startswith("SlurmctldPort")
    }
    listening = [
        line.split()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    ours = [words[1] for words in listening if str(int(words[1].split(":")[1], 16)) in numbers]
    assert len(ours) == 1
    assert ours[0].startswith("0100007F:")  # 127.0.0.1


@needs_root
def test_users_submit_under_their_own_accounts(
    slurm: SlurmCluster, people: People, ada: str, bob: str
) -> None:
    jobs = {name: submit(slurm, "id -un > ~/who; sleep 60", user=name) for name in (ada, bob)}
    for name in jobs:
        who = Path(f"/home/{name}/who")
        until(partial(written, who))
        assert written(who) == name
    with pytest.raises(ClusterError, match="Access/permission denied"):
        slurm.command("scancel", jobs[ada], user=bob)
    with pytest.raises(ClusterError):
        slurm.command("cat", str(slurm.folder / "secret/munge.key"), user=bob)


def test_memory_is_enforced(slurm: SlurmCluster) -> None:
    hog = "import time; block = bytearray(300 << 20); time.sleep(60)"
    job = submit(slurm, f"{sys.executable} -c '{hog}'", "--mem=50")
    until(lambda: not slurm.queue())
    assert state(slurm, job) == "FAILED"


def test_two_clusters_side_by_side(slurm: SlurmCluster) -> None:
    with SlurmCluster(nodes=1, cpus=2) as other:
        submit(slurm, "sleep 60", "--job-name=here")
        submit(other, "sleep 60", "--job-name=there")
        assert [line.split()[2] for line in slurm.queue()] == ["here"]
        assert [line.split()[2] for line in other.queue()] == ["there"]


def test_partitions_features_gres_and_limits() -> None:
    with SlurmCluster(
        nodes=2,
        cpus=4,
        memory=4000,
        partitions={
            "main": {"Default": "YES", "MaxTime": "60"},
            "short": {"Nodes": "node2", "MaxTime": "5"},
        },
        features={"node2": "highmem"},
        gres={"node2": "gpu:a100:2"},
        max_array_size=11,
        max_submit_jobs=20,
    ) as cluster:
        long = submit(cluster, "true", "--partition=short", "--time=6")
        reason = ["squeue", "-h", "-j", long, "-o", "%r"]
        until(lambda: cluster.command(*reason) == "PartitionTimeLimit")
        cluster.cancel_all()
        job = submit(cluster, "sleep 60", "--constraint=highmem", "--gres=gpu:1", "--array=1-8:2")
        until(lambda: any(line.startswith(f"{job}_1 RUNNING") for line in cluster.queue()))
        node = cluster.command("squeue", "-h", "-j", job, "-t", "R", "-o", "%N").split()
        assert set(node) == {"node2"}
        cluster.cancel_all()
        # Held: an array that starts changes the table that the limit is counted from.
        submit(cluster, "sleep 60", "--hold", "--array=1-10%1")
        submit(cluster, "sleep 60", "--hold", "--array=1-8:2")
        with pytest.raises(ClusterError, match="AssocMaxSubmitJobLimit"):
            submit(cluster, "true", "--array=1-7")
        submit(cluster, "sleep 60", "--hold", "--array=1,3-5,9-10%2")  # the twentieth, and no more
        with pytest.raises(ClusterError, match="job submit limit"):
            submit(cluster, "true")
        cluster.cancel_all()
        with pytest.raises(ClusterError, match="Invalid job array specification"):
            submit(cluster, "true", "--array=0-11")


def test_controller_down_and_up_again(slurm: SlurmCluster) -> None:
    job = submit(slurm, "sleep 60")
    until(lambda: state(slurm, job) == "RUNNING")
    slurm.stop_controller()
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        slurm.queue()
    slurm.start_controller()
    assert slurm.queue() == [f"{job} RUNNING wrap"]
    slurm.stop_controller(kill=True)
    slurm.start_controller()
    assert slurm.queue() == [f"{job} RUNNING wrap"]


def test_munge_down_and_up_again(slurm: SlurmCluster) -> None:
    slurm.stop_munge()
    with pytest.raises(ClusterError, match="Protocol authentication error"):
        slurm.queue()
    slurm.start_munge()
    assert slurm.queue() == []
    slurm.stop_munge(kill=True)
    with pytest.raises(SlurmUnavailableError, match="did not answer"):
        slurm.command("squeue", timeout=4.0)
    slurm.start_munge()
    assert slurm.queue() == []


def test_a_node_dies_with_its_jobs(slurm: SlurmCluster) -> None:
    job = submit(slurm, "setsid sleep 987654 & sleep 987654", "--no-requeue", "-w", "node1")

    def sleeping() -> int:
        found = [Path(f"/proc/{pid}/cmdline") for pid in processes(slurm.folder)]
        return sum(b"987654" in path.read_bytes() for path in found if path.exists())

    until(lambda: sleeping() >= 2)
    slurm.kill_node("node1")
    assert sleeping() == 0
    slurm.command("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=test")
    until(lambda: state(slurm, job) == "NODE_FAIL")
    slurm.start_node("node1")
    slurm.wait_idle()


def test_a_dead_slurmd_leaves_its_jobs_alone(slurm: SlurmCluster, tmp_path: Path) -> None:
    go, began = tmp_path / "go", tmp_path / "began"
    script = f"touch {began}; while [ ! -e {go} ]; do sleep 0.1; done"
    job = submit(slurm, script, "-w", "node2")
    until(began.exists)  # RUNNING says only that the node was told
    slurm.kill_node("node2", jobs=False)
    slurm.start_node("node2")
    assert state(slurm, job) == "RUNNING"
    go.touch()
    until(lambda: state(slurm, job) == "COMPLETED")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_test_is_killed(number: signal.Signals) -> None:
    script = (
        "import time\n"
        "from labkit.testing import SlurmCluster\n"
        "with SlurmCluster(nodes=1) as cluster:\n"
        "    cluster.command('sbatch', '-o', '/dev/null', '--wrap', 'setsid sleep 99 & sleep 99')\n"
        "    while not any('RUNNING' in line for line in cluster.queue()): time.sleep(0.05)\n"
        "    print(cluster.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as test:
        assert test.stdout is not None
        folder = Path(test.stdout.readline().strip())
        assert len(processes(folder)) > 4
        test.send_signal(number)
    until(lambda: not folder.exists() and not processes(folder))


def test_missing_slurm_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(ClusterError, match="apt install munge slurm-client slurmctld slurmd"):
        SlurmCluster()


def test_all_problems_of_a_layout_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)nodes=0.*node9.*my part.*config.*60 characters"):
        SlurmCluster(
            tmp_path / ("x" * 60),
            nodes=0,
            features={"node9": "fast"},
            partitions={"my part": {"Default": "YES"}},
            config={"Bad": "a\nNodeName=evil"},
        )


def test_a_wrong_setting_is_said_with_the_log() -> None:
    with pytest.raises(ClusterError, match="NoSuchSetting"):
        SlurmCluster(nodes=1, config={"NoSuchSetting": "1"}).start()


@needs_root
def test_without_root_one_user_has_a_cluster_of_their_own(ada: str) -> None:
    folder = Path(f"/home/{ada}/c")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from labkit.testing import SlurmCluster\n"
        "with SlurmCluster(sys.argv[2], nodes=2) as cluster:\n"
        "    cluster.command('sbatch', '-W', '-o', '/dev/null', '--wrap', 'id -un > ~/ran')\n"
    )
    sources = Path(f"/home/{ada}/sources")  # pytest's own folders are closed to other users
    shutil.copytree(Path(__file__).resolve().parents[2] / "labkit", sources / "labkit")
    sources.chmod(0o755)
    subprocess.run(
        ["/usr/bin/python3", "-c", script, str(sources), str(folder)],
        user=ada,
        group=ada,
        extra_groups=[],
        env={"HOME": f"/home/{ada}", "PATH": "/usr/bin:/bin"},
        cwd="/",
        check=True,
        timeout=60,
    )
    assert Path(f"/home/{ada}/ran").read_text().strip() == ada
    assert (folder / "slurm.conf").exists()
    assert not processes(folder)
