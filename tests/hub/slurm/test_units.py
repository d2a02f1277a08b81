"""Single parts of the slurm target, against hostile input and a stand-in for squeue."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.labfile.schema import Profile, Settings
from hub.labfile.slurm import JobOptions, Slurm, Software
from hub.slurm.cancel import Cancellations
from hub.slurm.commands import Account, execute
from hub.slurm.job_options import job_options
from hub.slurm.poller import Allowance, Poller, parse
from hub.slurm.script import Launch, render
from hub.slurm.submit import Order, minutes, options
from labkit.slurm.commands import SlurmRefusedError, SlurmUnavailableError, UnreadableError

ROW = "{id}|{state}|None|main|ada|100|1795268217|N/A|N/A|{host}"
EVIL = "x'; touch /tmp/labhub-pwned; echo '$(id)`id`\n#SBATCH --uid=0"


def row(number: int, state: str = "RUNNING", host: str = "node1") -> str:
    return ROW.format(id=number, state=state, host=host)


def slurm(**more: object) -> Slurm:
    values = {"partitions": ["main"], "hub_host": "head", "environments": "/shared/envs", **more}
    return Slurm.model_validate(values)


# -- squeue's answer --------------------------------------------------------------------------


def test_rows_are_read() -> None:
    rows = parse(f"{row(7)}\n3_[0-3]|PENDING|JobHeldUser|a,b|bob|0|1|1795268300|N/A|n/a\n")
    assert (rows["7"].host, rows["7"].state) == ("node1", "RUNNING")
    assert rows["3_[0-3]"].host == ""
    assert rows["3_[0-3]"].start == 1795268300.0


def test_somebodys_job_without_a_time_limit_blinds_nobody() -> None:
    rows = parse(f"{row(7)}\n8|RUNNING|None|main|bob|1|1795274803|1795274803|NONE|node1\n")
    assert rows["8"].end is None
    assert rows["7"].state == "RUNNING"


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error: Socket timed out",
        row(7)[:-20],
        f"{row(7)}|more",
        f"{row(7)}\nx",
        "7|RUNNING",
        row(7).replace("RUNNING", "running"),
    ],
)
def test_one_strange_line_makes_the_whole_answer_unknown(text: str) -> None:
    with pytest.raises(UnreadableError):
        parse(text)


class Squeue:
    """Answers as squeue would; an exception is raised instead."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, ...]] = []

    async def __call__(self, program: str, *args: str, timeout: float = 0) -> str:
        self.calls.append((program, *args))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def poller(squeue: Callable[..., Awaitable[str]], interval: float = 60.0) -> Poller:
    return Poller(interval, run=squeue, allowance=Allowance(100, 0.01))


@pytest.mark.parametrize(
    "answer",
    [
        SlurmUnavailableError("Unable to contact slurm controller"),
        SlurmUnavailableError("munge"),
        SlurmRefusedError("slurm_load_jobs error: Invalid job id specified"),
        "garbage",
    ],
)
async def test_a_failed_question_never_means_gone(answer: str | Exception) -> None:
    asked = poller(Squeue(row(7), answer))
    asked.watch("7")
    await asked.news(0.0)
    since = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked.news(since), 0.3)
    assert asked.failing
    assert not asked.gone("7", 0.0)
    assert not asked.gone("7", since)
    assert not asked.gone("8", since)


async def test_an_answer_from_before_the_job_says_nothing_of_it() -> None:
    asked = poller(Squeue(row(7)))
    asked.watch("7")
    await asked.news(0.0)
    submitted = time.monotonic()
    assert not asked.gone("8", submitted)
    await asked.news(submitted)
    assert asked.gone("8", submitted)


async def test_how_a_job_ended_is_asked_once_for_all() -> None:
    squeue = Squeue(f"{row(1)}\n{row(2)}", "", f"{row(1, 'TIMEOUT')}\n{row(2, 'NODE_FAIL')}", "")
    asked = poller(squeue)
    asked.watch("1")
    asked.watch("2")
    await asked.news(0.0)
    since = time.monotonic()
    await asked.news(since)
    found = [asked.row(job) for job in "12"]
    assert [one.state for one in found if one] == ["TIMEOUT", "NODE_FAIL"]
    assert all(asked.gone(job, since) for job in "12")
    await asked.news(time.monotonic())
    assert [call for call in squeue.calls if "-j" in call] == [squeue.calls[2]]


async def test_a_hundred_who_wait_share_one_question() -> None:
    squeue = Squeue("\n".join(row(number) for number in range(100)))
    asked = poller(squeue)
    since = time.monotonic()
    await asyncio.gather(*(asked.news(since) for _ in range(100)))
    assert len(squeue.calls) == 1


def test_never_more_than_ten_questions_in_any_minute() -> None:
    now = 0.0
    bucket = Allowance(burst=4, every=10.0, clock=lambda: now)
    taken: list[float] = []
    while now < 600:
        if bucket.wait() <= 0:
            bucket.take()
            taken.append(now)
        now += 0.1
    for start in taken:
        assert sum(start <= at < start + 60 for at in taken) <= 10


async def test_a_slow_controller_is_asked_more_seldom() -> None:
    async def slow(*_: str, timeout: float = 0) -> str:
        await asyncio.sleep(0.05)
        return ""

    asked = poller(slow, interval=0.1)
    asked.watch("7")
    await asked.news(0.0)
    assert asked._pause >= 0.5  # ten times as long as the answer took
    asked.forget("7")


# -- the job ----------------------------------------------------------------------------------


def test_a_job_is_described_by_arguments() -> None:
    profile = Profile(name="p", title="P", cpu=1.5, memory=(1 << 30) + 1, gpus=2)
    section = slurm(account="lab", qos="high", own_nodes=True)
    order = Order("labhub-1", "main", profile, "/home/ada/.log", section.job_options)
    words = options(order, section, "/home/ada", "m")
    for word in ("--cpus-per-task=2", "--mem=1025M", "--gres=gpu:2", "--time=480", "--no-requeue"):
        assert word in words
    for word in ("--account=lab", "--qos=high", "--exclusive=user", "--propagate=NONE"):
        assert word in words


def test_memory_is_asked_for_where_it_is_counted() -> None:
    """Nodes of a cluster that counts cores alone may have 1 MB by their own word."""
    profile = Profile(name="p", title="P")
    for counts in (True, False):
        order = Order("n", "main", profile, "/home/x/.log", counts_memory=counts)
        words = options(order, slurm(), "/home/x", "m")
        assert ("--mem=2048M" in words) is counts
        assert any(word.startswith("--mem=") for word in words) is counts


def test_a_profile_comes_before_a_group_and_a_group_before_the_lab() -> None:
    lab = {
        "target": "slurm",
        "groups": {"imaging": ["ada"], "course": ["ada", "bob"]},
        "profiles": [
            {"name": "plain", "title": "Plain"},
            {
                "name": "card",
                "title": "Card",
                "gpus": 2,
                "slurm": {"gpu_type": "a100", "constraint": "icelake&nvme", "account": "gpu"},
            },
        ],
        "slurm": {
            "partitions": ["main"],
            "hub_host": "head",
            "environments": "/shared",
            "account": "lab",
            "qos": "normal",
            "groups": {
                "course": {"account": "teaching", "reservation": "course", "qos": "high"},
                "imaging": {"account": "imaging"},
            },
        },
    }
    settings = Settings.model_validate(lab)
    plain, card = settings.profiles

    def words(profile: Profile, person: str) -> set[str]:
        wanted = job_options(settings, profile, settings.groups_of(person))
        assert settings.slurm is not None
        order = Order("n", "main", profile, "/home/x/.log", wanted)
        names = ("--account", "--qos", "--reservation", "--constraint", "--gres")
        return {w for w in options(order, settings.slurm, "/home/x", "m") if w.startswith(names)}

    assert words(plain, "carl") == {"--account=lab", "--qos=normal"}
    course = {"--account=teaching", "--qos=high", "--reservation=course"}
    assert words(plain, "ada") == words(plain, "bob") == course, "the first that she is in"
    own = {"--account=gpu", "--gres=gpu:a100:2", "--constraint=icelake&nvme"}
    assert words(card, "carl") == {*own, "--qos=normal"}
    assert words(card, "bob") == {*own, "--qos=high", "--reservation=course"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"account": "x --uid=0"},
        {"reservation": "a b"},
        {"constraint": "a b"},
        {"constraint": "a;id"},
        {"constraint": "$(id)"},
        {"constraint": "-x"},
        {"gpu_type": "a100:1,gpu"},
    ],
    ids=str,
)
def test_options_of_jobs_are_plain_words(wanted: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        JobOptions.model_validate(wanted)


@pytest.mark.parametrize("home", ["/home/a b", "/home/%u", "/home/a\nb", "home", "/home/$(id)"])
def test_a_home_that_slurm_would_read_differently_is_refused(home: str) -> None:
    order = Order("n", "main", Profile(name="p", title="P"), f"{home}/.log")
    with pytest.raises(ValueError, match="path"):
        options(order, slurm(), home, "m")


def test_a_time_limit_is_rounded_up() -> None:
    assert minutes(timedelta(seconds=61)) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("account", "lab --uid=0"),
        ("qos", "x\n#SBATCH --uid=0"),
        ("partitions", ["main,--uid=0"]),
        ("hub_host", "head/../x"),
        ("environments", "envs"),
        ("environments", "/a/../etc"),
        ("environments", "/a\nb"),
        ("software", {"r": {"modules": ["r; id"]}}),
        ("software", {"r": {"modules": ["--force"]}}),
        ("software", {"r": {"image": "r.sif"}}),
        ("software", {"r": {}}),
        ("ports", "80-90"),
        ("ports", "30000-20000"),
        ("ports", "30000-70000"),
        ("time_limit", "1s"),
    ],
)
def test_the_lab_file_takes_no_other_words(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        slurm(**{key: value})


def test_every_value_in_the_script_is_quoted(tmp_path: Path) -> None:
    """Run the script with a server that prints its arguments; nothing else may happen."""
    environment = tmp_path / "it's $(an) env"
    (environment / "stub" / "bin").mkdir(parents=True)
    server = environment / "stub" / "bin" / "jupyterhub-singleuser"
    server.write_text("#!/bin/sh\nexit 0\n")
    server.chmod(0o755)
    python = server.with_name("python")
    python.write_text("#!/usr/bin/python3\nimport json,sys;print(json.dumps(sys.argv[5:]))\n")
    python.chmod(0o755)
    section = slurm(environments=str(environment))
    text = render(section, "stub", [EVIL, "$HOME"], Launch(["127.0.0.1"], [0], 60))
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=True)
    told, *words = json.loads(done.stdout)
    assert words == [str(server), EVIL, "$HOME"]
    assert json.loads(told)["ports"] == [25000, 29999]
    assert not Path("/tmp/labhub-pwned").exists()


def test_a_missing_environment_is_named_by_the_job(tmp_path: Path) -> None:
    section = slurm(environments=str(tmp_path))
    text = render(section, "notebook", [], Launch([], [], 60))
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 78
    assert f"the environment {tmp_path}/notebook is not there" in done.stderr


def test_an_image_is_run_by_apptainer(tmp_path: Path) -> None:
    """A stand-in for apptainer, which shows what it is given."""
    image = tmp_path / "note book.sif"
    image.touch()
    for name, text in (
        ("apptainer", '#!/bin/sh\nprintf "%s\\n" "$@"\n'),
        ("python3", '#!/bin/sh\nshift 5\nexec "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    section = slurm(software={"notebook": Software(image=image)})
    script = render(section, "notebook", ["--x"], Launch([], [], 60), gpus=True)
    done = subprocess.run(
        ["/bin/bash"],
        input=script,
        text=True,
        capture_output=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    words = done.stdout.splitlines()
    assert words[:2] == ["exec", "--nv"], done.stderr
    assert words[-3:] == [str(image), "jupyterhub-singleuser", "--x"]


MODULES = Path("/usr/share/modules/init/bash")


@pytest.mark.skipif(not MODULES.exists(), reason="needs environment-modules")
def test_a_module_brings_the_server(tmp_path: Path) -> None:
    """The real environment modules, with a modulefile that puts a folder into PATH."""
    program = tmp_path / "bin" / "jupyterhub-singleuser"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    python = program.with_name("python3")
    python.write_text('#!/bin/sh\nshift 5\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "files" / "jupyter").mkdir(parents=True)
    text = f"#%Module\nprepend-path PATH {program.parent}\n"
    (tmp_path / "files" / "jupyter" / "4").write_text(text)
    for module, code in (("jupyter/4", 0), ("nothing/1", 78)):
        section = slurm(software={"r": Software(modules=(module,))})
        script = render(section, "r", ["--x"], Launch([], [], 60))
        done = subprocess.run(
            ["/bin/bash"],
            input=script,
            text=True,
            capture_output=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "MODULEPATH": str(tmp_path / "files")},
        )
        assert done.returncode == code, done.stderr
    assert "the module nothing/1 cannot be loaded" in done.stderr


# -- running programs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sbatch: error: invalid partition specified: nope", SlurmRefusedError),
        ("Batch job submission failed: Requested time limit is invalid", SlurmRefusedError),
        ("Unable to contact slurm controller (connect failure)", SlurmUnavailableError),
        ("Invalid authentication credential", SlurmUnavailableError),
        ("Munge encode failed: Failed to access", SlurmUnavailableError),
        ("Socket timed out on send/recv operation", SlurmUnavailableError),
        ("", SlurmUnavailableError),
    ],
)
async def test_a_refusal_differs_from_silence(said: str, kind: type[Exception]) -> None:
    with pytest.raises(SlurmUnavailableError) as raised:
        await execute(["/bin/sh", "-c", f"echo '{said}' >&2; exit 1"], {})
    assert type(raised.value) is kind


async def test_a_program_that_hangs_is_killed() -> None:
    with pytest.raises(SlurmUnavailableError, match="did not answer"):
        await execute(["/bin/sleep", "86400"], {}, timeout=0.2)


async def test_what_could_not_be_cancelled_is_kept_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = True
    done: list[str] = []

    async def scancel(account: Account, program: str, args: list[str], **_: object) -> str:
        if down:
            raise SlurmUnavailableError("no answer")
        done.append(args[-1])
        return ""

    monkeypatch.setattr("hub.slurm.cancel.as_owner", scancel)
    monkeypatch.setattr("hub.slurm.cancel.FIRST", 0.05)
    file = tmp_path / "cancel.json"
    assert not await Cancellations(file, "labhub-x").cancel("7", "root")
    down = False
    later = Cancellations(file, "labhub-x")  # as a new hub would
    assert later.left == {"7": "root"}
    later.resume()
    end = time.monotonic() + 5
    while later.left and time.monotonic() < end:
        await asyncio.sleep(0.02)
    assert "7" in done
    assert json.loads(file.read_text()) == {}
