"""``submit("slurm")`` from a notebook server that itself runs as a SLURM job, as its user."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from labkit.testing import SlurmCluster
from tests.conftest import needs_root
from tests.support.job_helpers import until

ROOT = Path(__file__).resolve().parents[2]

# Every option of sbatch can come from its environment; a job around us leaves many of them there.
HOSTILE = {
    "SBATCH_PARTITION": "nowhere",
    "SBATCH_ACCOUNT": "nobody",
    "SBATCH_CONSTRAINT": "unobtainium",
    "SBATCH_TIMELIMIT": "1-0",
    "SBATCH_EXCLUSIVE": "user",
    "SBATCH_ARRAY_INX": "0-9",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_WAIT": "1",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "COMPLETED",
    "SQUEUE_PARTITION": "nowhere",
    "SCANCEL_INTERACTIVE": "1",
    "JUPYTERHUB_API_TOKEN": "s3cr3t-of-the-server",
}

NOTEBOOK = """
import json, os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import labkit
rows = [{"name": "a"}, {"name": "b"}]
command = labkit.Command(
    "env > env; echo {name} > said", over=rows, outputs=["said", "env"], shell=True,
    cpu=2, memory="300 MB",
)
job = command.submit("slurm").wait(60)
env = [open(path).read() for path in job.results("env")["path"]]
seen = {name: value for name, value in os.environ.items() if name.startswith("SLURM_JOB")}
plain = subprocess.run(["sbatch", "--wrap", "true"], capture_output=True, text=True).stderr
said = {"plain": plain, "state": job.state, "env": env, "own": seen, "path": str(job.path)}
print(json.dumps(said))
"""


def variables(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


@needs_root
def test_a_job_submits_jobs(slurm: SlurmCluster, ada: str, tmp_path: Path) -> None:
    home = Path(f"/home/{ada}")
    script = home / "notebook.sh"
    python = Path(sys.executable)
    if not _reachable(python) or not _reachable(ROOT / "labkit"):
        pytest.skip("needs a Python and sources that other users can read")
    code = home / "notebook.py"
    code.write_text(NOTEBOOK)
    exports = "".join(f"export {name}={value}\n" for name, value in HOSTILE.items())
    script.write_text(f"#!/bin/sh\n{exports}exec {python} {code} {ROOT}\n")
    answer = home / "answer"
    slurm.command(
        "sbatch", f"--output={answer}", f"--error={home}/errors", "--cpus-per-task=3",
        "--mem-per-cpu=111", "--time=30", "--export=NIL", f"--chdir={home}", str(script),
        user=ada,
    )  # fmt: skip
    until(lambda: not slurm.queue(), 90, every=0.2)
    errors = (home / "errors").read_text()
    assert answer.read_text().strip(), errors
    said = json.loads(answer.read_text().splitlines()[-1])
    assert "sbatch: error" in said["plain"], "plain sbatch is misled by all this"
    assert said["state"] == "SUCCEEDED", errors
    assert str(home) in said["path"], "without configuration it lands in the user's home"
    for text in said["env"]:
        env = variables(text)
        assert env["SLURM_JOB_ID"] != said["own"]["SLURM_JOB_ID"], "it is a job of its own"
        assert env["SLURM_JOB_NAME"].startswith("labkit-")
        assert env["SLURM_CPUS_PER_TASK"] == "2"
        assert int(env["SLURM_MEM_PER_NODE"]) == 300 + 64, "what it asked for, and the worker's"
        assert "SLURM_MEM_PER_CPU" not in env, "the notebook's own limit"
        assert env["SLURM_JOB_PARTITION"] == "main"
        assert env["HOME"] == str(home)
        assert not [name for name in env if name.startswith(("SBATCH_", "SQUEUE_", "SCANCEL_"))]
        assert "s3cr3t-of-the-server" not in text


def _reachable(path: Path) -> bool:
    """Return whether every user may pass to a path."""
    whole = path.resolve()
    return all(part.stat().st_mode & 0o5 == 0o5 for part in (whole, *whole.parents))
