"""Names, rules, views, logs and checks of the walls, without a hub."""

from __future__ import annotations

import ipaddress
import os
import pwd
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from traitlets.config import Config

from hub import targets
from hub.labfile.schema import Settings
from hub.sandbox import cgroups, checks, log_writer, network
from hub.sandbox.bubblewrap import SandboxError, View, arguments, environment_folders, own_home
from hub.sandbox.configure import shared_view
from hub.sandbox.inherited import renew
from hub.sandbox.instance import Instance, sandbox_key
from hub.sandbox.network import Network, NetworkError
from hub.sandbox.reap import reap, remove_all
from hub.sandbox.sandboxes import Sandboxes, Shared
from hub.state.paths import Paths
from labkit.base.problems import ProblemsError
from tests.conftest import needs_root
from tests.security.neighbours import traces


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "envs").mkdir()
    return Paths(state=tmp_path / "state", envs=tmp_path / "envs")


def me() -> pwd.struct_passwd:
    return pwd.getpwuid(os.geteuid())


def person(home: Path, uid: int | None = None) -> pwd.struct_passwd:
    """An account that exists nowhere but in this test."""
    fields = list(me())
    fields[2] = os.geteuid() if uid is None else uid
    fields[5] = str(home)
    return pwd.struct_passwd(fields)


# -- names --------------------------------------------------------------------------------


def test_two_portals_have_nothing_in_common(tmp_path: Path) -> None:
    first = Instance.of(Paths(tmp_path / "a", tmp_path))
    second = Instance.of(Paths(tmp_path / "b", tmp_path))
    names = [
        (i.table, i.interfaces, i.namespaces, i.cgroup, str(i.folder)) for i in (first, second)
    ]
    assert not set(names[0]) & set(names[1])
    assert first == Instance.of(Paths(tmp_path / "a", tmp_path))
    assert len(f"{first.interfaces}{2**24 - 1:x}") <= 15  # the kernel's limit


def test_a_sandbox_is_named_by_numbers() -> None:
    assert sandbox_key(1001, "") == "1001"
    hostile = sandbox_key(1001, "../../x; rm -rf")
    assert hostile.startswith("1001-")
    assert hostile.removeprefix("1001-").isalnum()


# -- network ------------------------------------------------------------------------------


@needs_root
def test_a_full_subnet_says_so(paths: Paths) -> None:
    net = Network(Instance.of(paths), ipaddress.IPv4Network("10.240.7.0/30"), 8081)
    try:
        net.connect("1001")
        with pytest.raises(NetworkError, match=r"no network .* 10\.240\.7\.0/30"):
            net.connect("1002")
        assert net.keys() == {"1001"}  # nothing half made is left
    finally:
        net.disconnect("1001")
    assert net.keys() == set()


@needs_root
def test_accounts_beyond_the_subnets_size_have_addresses_too(paths: Paths) -> None:
    net = Network(Instance.of(paths), ipaddress.IPv4Network("10.240.8.0/29"), 8081)
    keys = ["5", "1000000005", "5-abcdef01"]
    try:
        links = [net.connect(key) for key in keys]
        assert len({link.address for link in links}) == len(keys)
        assert len({link.interface for link in links}) == len(keys)
    finally:
        for key in keys:
            net.disconnect(key)


@needs_root
def test_the_rules_are_what_nft_takes(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[list[str], str | None]] = [([], None), ([], "127.0.0.1")]
    cases.append((["192.168.1.1", "10.0.0.1"], None))
    for resolvers in cases:
        monkeypatch.setattr(network, "resolvers_of_host", partial(tuple, resolvers))
        net = Network(
            Instance.of(paths),
            ipaddress.IPv4Network("10.240.9.0/24"),
            8081,
            allow=[ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00::/8")],
        )
        subprocess.run(["nft", "--check", "-f", "-"], input=net.ruleset(), text=True, check=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.168.1.1\nnameserver 2001:db8::1\n", (["192.168.1.1"], None)),
        ("nameserver 127.0.0.1\n", ([], "127.0.0.1")),
        ("nameserver 127.0.0.1\nnameserver 9.9.9.9\n", (["9.9.9.9"], None)),
        ("", ([], None)),
    ],
)
def test_name_servers(
    text: str, expected: tuple[list[str], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_resolver_file", lambda: text)
    assert network.resolvers_of_host() == expected


# -- view ---------------------------------------------------------------------------------


def view(home: Path, tmp_path: Path, **kwargs: object) -> View:
    return View(
        account=person(home),
        tmp=tmp_path,
        resolv_conf=tmp_path / "resolv.conf",
        shm=1,
        **kwargs,  # type: ignore[arg-type]
    )


def pairs(args: list[str], flag: str) -> list[str]:
    return [args[at + 1] for at, word in enumerate(args) if word == flag]


def test_a_home_must_be_the_persons_own_and_stays_as_open_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    assert own_home(person(home)) == home
    assert caplog.text == ""
    home.chmod(0o755)
    assert own_home(person(home)) == home
    assert home.stat().st_mode & 0o777 == 0o755
    assert "is open to other accounts of this machine (mode 0755)" in caplog.text
    for bad in (
        person(home, os.geteuid() + 1),
        person(tmp_path / "none"),
        person(Path("/proc"), 9),
    ):
        with pytest.raises(SandboxError, match="home"):
            own_home(bad)


def test_the_state_is_hidden_where_something_above_it_is_shared(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    envs = state / "envs"
    for folder in (envs, home):
        folder.mkdir(parents=True)
    args = arguments(view(home, tmp_path, read_only=[tmp_path, envs], hidden=[state]))
    assert args.index(str(tmp_path)) < args.index(str(state)) < args.index(str(envs))
    assert str(state) in pairs(args, "--tmpfs")
    args = arguments(view(home, tmp_path, read_only=[envs], hidden=[state]))
    assert str(state) not in pairs(args, "--tmpfs")  # nothing shows it


def test_a_shared_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(SandboxError, match=r"nowhere.*is missing"):
        arguments(view(home, tmp_path, read_only=[tmp_path / "nowhere"]))


def test_environments_elsewhere_and_their_pythons_are_shown(paths: Paths, tmp_path: Path) -> None:
    elsewhere, python = tmp_path / "elsewhere", tmp_path / "brought" / "bin"
    python.mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "pyvenv.cfg").write_text(f"home = {python}\nversion = 3.12\n")
    (paths.envs / "notebook").symlink_to(elsewhere)
    (paths.envs / "own").mkdir()
    (paths.envs / "own" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert environment_folders(paths.envs) == [paths.envs, elsewhere, python.parent]


def test_the_lab_files_folders(paths: Paths, tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"storage": {"shared": [{"path": "/data"}, {"path": "/scratch", "mode": "rw"}]}}
    )
    shared = shared_view(settings, paths)
    assert Path("/data") in shared.read_only
    assert list(shared.read_write) == [Path("/scratch")]
    assert list(shared.hidden) == [paths.state, Path("/home")]


# -- log ----------------------------------------------------------------------------------


def test_a_log_keeps_its_end_within_its_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = [sys.executable, "-I", "-S", log_writer.__file__, str(log), "200000"]
    lines = b"".join(b"line %d\n" % number for number in range(100_000))
    subprocess.run(program, input=lines + b"the end\n", check=True)
    assert log.read_bytes().endswith(b"the end\n")
    files = [log, tmp_path / "log.1"]
    assert 0 < sum(file.stat().st_size for file in files) <= 200_000
    assert log.stat().st_mode & 0o777 == 0o600
    subprocess.run(program, input=b"another start\n", check=True)
    assert log.read_bytes().endswith(b"the end\nanother start\n")


# -- sandboxes --------------------------------------------------------------------------------


@needs_root
def test_only_what_has_ended_is_reaped(paths: Paths) -> None:
    instance = Instance.of(paths)
    net = Network(instance, ipaddress.IPv4Network("10.240.10.0/24"), 8081)
    groups = cgroups.detect(instance.cgroup)
    sandboxes = Sandboxes(instance, net, groups, Shared())
    limits = cgroups.SandboxLimits(cpu=1, memory=64 << 20, processes=20)
    home = paths.state / "home"
    home.mkdir(parents=True)
    try:
        ended = sandboxes.create("1001", person(home), limits)
        running = sandboxes.create("1002", person(home), limits)
        with running.prepared() as (front, descriptors):
            server = subprocess.Popen(
                [*front, "sleep", "60"],
                pass_fds=descriptors,
                preexec_fn=renew(running.join_files, umask=0o077),
            )
        while not sandboxes.serving("1002"):
            assert server.poll() is None
        sandboxes.started(ended.key)
        sandboxes.started(running.key)
        assert sandboxes.known() == {"1001", "1002"}
        assert reap(sandboxes) == ["1001"]
        assert traces(sandboxes, "1001") == []
        assert sandboxes.serving("1002")
    finally:
        remove_all(sandboxes)
    assert sandboxes.known() == set()
    assert not net.in_force()
    assert not any(parent.exists() for parent in groups.parents.values())
    assert server.wait(5) != 0


@needs_root
def test_a_sandbox_that_cannot_be_made_leaves_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance.of(paths)
    net = Network(instance, ipaddress.IPv4Network("10.240.11.0/24"), 8081)
    sandboxes = Sandboxes(instance, net, cgroups.detect(instance.cgroup), Shared())
    limits = cgroups.SandboxLimits(cpu=1, memory=64 << 20, processes=20)
    try:
        with pytest.raises(SandboxError):
            sandboxes.create("1001", person(paths.state / "nowhere"), limits)
        assert traces(sandboxes, "1001") == []
    finally:
        remove_all(sandboxes)


# -- checks -------------------------------------------------------------------------------


@needs_root
def test_missing_programs_come_with_the_line_that_installs_them(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_which", lambda tool: None if tool in ("bwrap", "nft") else tool)
    found = checks.problems(Settings(), paths)
    assert "missing on this machine: bwrap, nft" in found[0].text
    assert found[0].hint == "apt-get install --yes bubblewrap nftables"
    with pytest.raises(ProblemsError, match="bubblewrap nftables"):
        targets.of(Settings(), paths).configure(Config())


@needs_root
def test_a_small_subnet_and_useless_networks_are_told(paths: Paths) -> None:
    local = {"subnet": "10.240.12.0/28", "allow_networks": ["fd00::/8"]}
    found = checks.problems(Settings.model_validate({"local": local}), paths)
    texts = {problem.where: problem for problem in found}
    assert "too small for 100 servers" in texts["local.subnet"].text
    assert texts["local.allow_networks"].warning


@needs_root
def test_a_subnet_in_use_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    lan = ipaddress.IPv4Network("10.98.4.0/24")
    monkeypatch.setattr(checks, "attached_networks", lambda: [lan])
    (problem,) = checks._addresses(Settings())
    assert "10.98.4.0/24" in problem.text


@needs_root
def test_a_firewall_that_drops_is_told(paths: Paths) -> None:
    table = f"labtest_{os.getpid()}"
    rules = (
        f"table inet {table} {{ chain guard {{ type filter hook forward priority 10; "
        "policy drop; accept; }; }"
    )
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        found = [p for p in checks.problems(Settings(), paths) if table in p.text]
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)
    assert found
    assert found[0].warning
    assert f"insert rule inet {table} guard oifname" in found[0].hint


def test_without_root_it_says_whom_it_serves(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    (problem,) = checks.problems(Settings(), paths)
    assert problem.warning
    assert "serves nobody alone" in problem.text
