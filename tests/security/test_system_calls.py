"""Calls into the kernel that a sandbox may not make, each tried from inside; and what works."""

from __future__ import annotations

import errno
import json
import os
import platform
import struct
from collections.abc import Iterator

import pytest

from hub.sandbox import seccomp
from hub.sandbox.bubblewrap import TERMINALS
from hub.sandbox.sandboxes import Sandboxes
from tests.conftest import needs_env, needs_root
from tests.security.bare_sandbox import PYTHON, bare_sandboxes, run_inside
from tests.support.portal import Portal, built_envs, portal

MACHINE = platform.machine()
CALLS = seccomp.CALLS.get(MACHINE, {})
NEWUSER, NEWNET = seccomp.CLONE_NEWUSER, 0x40000000
SIGCHLD = 17
# A call by its number; what makes a process ends it again.
CALL = """
import ctypes, os, sys
number, *arguments = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
back = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(word) for word in arguments))
code = ctypes.get_errno() if back < 0 else 0
if number == int(os.environ["CLONE"]) and back == 0:
    os._exit(0)
print(code)
"""
ATTACKS = [
    ("keyctl", [0, -3 % (1 << 64), 1]),
    ("add_key", [0, 0, 0, 0, 0]),
    ("request_key", [0, 0, 0, 0]),
    ("io_uring_setup", [8, 0]),
    ("io_uring_enter", [0, 0, 0, 0, 0, 0]),
    ("io_uring_register", [0, 0, 0, 0]),
    ("fanotify_init", [0, 0]),
    ("bpf", [0, 0, 0]),
    ("userfaultfd", [1]),  # UFFD_USER_MODE_ONLY
    ("perf_event_open", [0, 0, 0, 0, 0]),
    ("socket", [seccomp.AF_VSOCK, 1, 0]),
    ("socket", [seccomp.AF_VSOCK | 1 << 32, 1, 0]),  # the kernel reads the low word alone
    ("socketpair", [seccomp.AF_VSOCK, 1, 0, 0]),
    ("unshare", [NEWUSER]),
    ("unshare", [NEWUSER | NEWNET]),
    ("clone", [NEWUSER | SIGCHLD, 0, 0, 0, 0]),
]


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandboxes]:
    with bare_sandboxes(tmp_path_factory.mktemp("state"), "10.240.22.0/24") as those:
        yield those


def answer(
    sandboxes: Sandboxes,
    who: str,
    call: str,
    arguments: list[int],
    *,
    user_namespaces: bool = False,
) -> int:
    """Return the error number of a call made inside; 0 where the kernel let it pass."""
    words = [str(CALLS[call]), *map(str, arguments)]
    done = run_inside(
        sandboxes,
        who,
        [PYTHON, "-c", CALL, *words],
        user_namespaces=user_namespaces,
        env={"CLONE": str(CALLS["clone"])},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@needs_root
@pytest.mark.parametrize(("call", "arguments"), ATTACKS)
def test_a_call_that_is_refused(
    sandboxes: Sandboxes, ada: str, call: str, arguments: list[int]
) -> None:
    assert answer(sandboxes, ada, call, arguments) == errno.EPERM


@needs_root
def test_clone3_is_not_there(sandboxes: Sandboxes, ada: str) -> None:
    assert answer(sandboxes, ada, "clone3", [0, 0]) == errno.ENOSYS


@needs_root
def test_nobody_takes_the_machines_asynchronous_io(sandboxes: Sandboxes, ada: str) -> None:
    assert answer(sandboxes, ada, "io_setup", [1, 0]) == errno.ENOSYS


@needs_root
def test_terminals_have_a_share_for_each_sandbox(sandboxes: Sandboxes, ada: str) -> None:
    code = """
import os
held = []
try:
    while len(held) < 500:
        held.append(os.openpty())
except OSError as error:
    print(len(held), error.errno)
"""
    done = run_inside(sandboxes, ada, [PYTHON, "-c", code])
    assert done.stdout.split() == [str(TERMINALS), str(errno.ENOSPC)], done.stderr
    shown = run_inside(
        sandboxes, ada, ["sh", "-c", "script -qc 'tty; id -un' /dev/null; ls -l /dev/pts/ptmx"]
    )
    assert "/dev/pts/0" in shown.stdout, shown
    assert ada in shown.stdout
    assert "crw-rw-rw-" in shown.stdout


@needs_root
def test_the_rights_that_made_the_sandbox_are_gone(sandboxes: Sandboxes, ada: str) -> None:
    done = run_inside(sandboxes, ada, ["grep", "-E", "Cap|NoNewPrivs", "/proc/self/status"])
    fields = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert fields.pop("NoNewPrivs") == "1"
    assert set(fields.values()) == {"0" * 16}


@needs_root
def test_a_profile_may_open_user_namespaces(sandboxes: Sandboxes, ada: str) -> None:
    for call, arguments in (("unshare", [NEWUSER]), ("clone", [NEWUSER | SIGCHLD, 0, 0, 0, 0])):
        assert answer(sandboxes, ada, call, arguments, user_namespaces=True) == 0
    assert answer(sandboxes, ada, "clone3", [0, 0], user_namespaces=True) == errno.EINVAL
    # All else stays closed, as root of an own namespace too.
    assert answer(sandboxes, ada, "keyctl", [0, 0, 0], user_namespaces=True) == errno.EPERM
    done = run_inside(
        sandboxes, ada, ["unshare", "--user", "--map-root-user", "id", "-u"], user_namespaces=True
    )
    assert done.stdout.strip() == "0", done.stderr
    done = run_inside(sandboxes, ada, ["unshare", "--user", "--map-root-user", "id", "-u"])
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr


@needs_root
@pytest.mark.skipif(MACHINE != "x86_64", reason="x86-64 alone has these second sets of calls")
def test_foreign_calls_are_refused(sandboxes: Sandboxes, ada: str) -> None:
    x32 = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(ctypes.c_long(0x40000000 | 39)), ctypes.get_errno())
"""
    done = run_inside(sandboxes, ada, [PYTHON, "-c", x32])
    assert done.stdout.split() == ["-1", str(errno.ENOSYS)]
    # getpid by the 32-bit door (int 0x80), from a 64-bit program.
    i386 = """
import ctypes, mmap
code = bytes.fromhex("53b814000000cd805bc3")  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""
    done = run_inside(sandboxes, ada, [PYTHON, "-c", i386])
    assert done.stdout == ""
    assert done.returncode == 128 + 31  # SIGSYS: the kernel ended it


@needs_root
def test_what_programs_need_works(sandboxes: Sandboxes, ada: str) -> None:
    code = """
import asyncio, json, multiprocessing, os, socket, subprocess, threading
def work(x):
    return x * x
done = {}
thread = threading.Thread(target=lambda: done.setdefault("thread", 1))
thread.start()
thread.join()
done["process"] = subprocess.run(["/bin/echo", "hi"], capture_output=True, text=True).stdout
done["pool"] = multiprocessing.get_context("fork").Pool(2).map(work, [1, 2, 3])
first, second = socket.socketpair(); first.send(b"x"); done["pair"] = second.recv(1).decode()
inet = socket.socket(); inet.bind(("127.0.0.1", 0)); inet.listen()
socket.create_connection(inet.getsockname())
async def run():
    process = await asyncio.create_subprocess_exec("/bin/true")
    return await process.wait()
done["asyncio"] = asyncio.run(run())
primary, other = os.openpty(); os.write(other, b"tty"); done["pty"] = os.read(primary, 3).decode()
print(json.dumps(done))
"""
    done = run_inside(sandboxes, ada, [PYTHON, "-c", code])
    assert json.loads(done.stdout) == {
        "thread": 1,
        "process": "hi\n",
        "pool": [1, 4, 9],
        "pair": "x",
        "asyncio": 0,
        "pty": "tty",
    }, done.stderr


@needs_root
@needs_env("r")
def test_r_works(sandboxes: Sandboxes, ada: str) -> None:
    code = "library(parallel); cat(sum(unlist(mclapply(1:4, function(x) x, mc.cores = 2))))"
    done = run_inside(sandboxes, ada, ["Rscript", "-e", code])
    assert done.stdout == "10", done.stderr


@needs_root
@needs_env("notebook")
def test_scientific_programs_start(sandboxes: Sandboxes, ada: str) -> None:
    programs = {
        "jupyterhub-singleuser": ["--version"],
        "jupyter": ["lab", "--version"],
    }
    folder = built_envs() / "notebook" / "bin"
    for name, arguments in programs.items():
        done = run_inside(sandboxes, ada, [str(folder / name), *arguments])
        assert done.returncode == 0, f"{name}: {done.stderr}"
        assert done.stdout.strip()


@needs_root
@needs_env("cellxgene")
def test_cellxgene_starts(sandboxes: Sandboxes, ada: str) -> None:
    program = built_envs() / "cellxgene" / "bin" / "cellxgene"
    done = run_inside(sandboxes, ada, [str(program), "launch", "--help"])
    assert done.returncode == 0, done.stderr
    assert "Usage: cellxgene launch" in done.stdout


@needs_root
def test_a_profile_of_the_lab_file(ada: str) -> None:
    profiles = [
        {"name": "stub", "title": "Stub", "environment": "stub"},
        {"name": "open", "title": "Open", "environment": "stub", "user_namespaces": True},
    ]
    unshare = (
        "import subprocess\n"
        "print(subprocess.run(['unshare', '--user', 'true'], capture_output=True).returncode)"
    )
    with portal({"profiles": profiles}) as lab:
        started: Portal = lab
        for profile, wanted in (("stub", False), ("open", True)):
            started.spawn(ada, profile)
            assert (started.run(ada, unshare).strip() == "0") is wanted
            started.stop_server(ada)


# -- the program itself, for both kinds of processor -----------------------------------------


def judge(
    machine: str, call: int, first: int = 0, *, arch: int | None = None, **kwargs: bool
) -> int:
    """Run the filter's program as the kernel would; returns its verdict."""
    audit = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    data = struct.pack("<iIQ6Q", call, audit if arch is None else arch, 0, first, 0, 0, 0, 0, 0)
    program = seccomp.program(machine, **kwargs)
    at = word = 0
    while True:
        one = program[at]
        at += 1
        match one.code:
            case 0x20:
                (word,) = struct.unpack_from("<I", data, one.operand)
            case 0x15:
                at += one.if_true if word == one.operand else one.if_false
            case 0x35:
                at += one.if_true if word >= one.operand else one.if_false
            case 0x45:
                at += one.if_true if word & one.operand else one.if_false
            case 0x06:
                return one.operand


ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_program_for_each_processor(machine: str) -> None:
    calls = seccomp.CALLS[machine]
    for name in seccomp.REFUSED:
        assert judge(machine, calls[name]) == ERRNO | errno.EPERM
    for name in ("socket", "socketpair"):
        assert judge(machine, calls[name], seccomp.AF_VSOCK) == ERRNO | errno.EPERM
        assert judge(machine, calls[name], 2) == ALLOW
    for name in ("clone", "unshare"):
        assert judge(machine, calls[name], NEWUSER | 0x11) == ERRNO | errno.EPERM
        assert judge(machine, calls[name], 0x11) == ALLOW
        assert judge(machine, calls[name], NEWUSER, user_namespaces=True) == ALLOW
    assert judge(machine, calls["clone3"]) == ERRNO | errno.ENOSYS
    assert judge(machine, calls["clone3"], user_namespaces=True) == ALLOW
    assert judge(machine, calls["io_setup"]) == ERRNO | errno.ENOSYS
    assert judge(machine, 63) == ALLOW  # read or uname
    assert judge(machine, 0, arch=0x40000003) == KILL  # i386
    assert judge(machine, 0, arch=0x40000028) == KILL  # 32-bit ARM


def test_x32_is_no_way_round() -> None:
    for number in (0x40000000, 0x40000000 | 250, 0xFFFFFFFF - (1 << 32)):
        assert judge("x86_64", number) == ERRNO | errno.ENOSYS


def test_the_numbers_are_the_kernels_own() -> None:
    """The table against this machine's headers, where they are installed."""
    header = f"/usr/include/{MACHINE}-linux-gnu/asm/unistd_64.h"
    if MACHINE != "x86_64" or not os.path.exists(header):  # noqa: PTH110
        header = "/usr/include/asm-generic/unistd.h" if MACHINE == "aarch64" else ""
    if not header or not os.path.exists(header):  # noqa: PTH110
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    with open(header) as stream:  # noqa: PTH123
        lines = [line.split() for line in stream if line.startswith("#define __NR_")]
    numbers = {words[1].removeprefix("__NR_"): words[2] for words in lines if len(words) == 3}
    assert {name: int(numbers[name]) for name in CALLS} == CALLS


def test_another_processor_has_no_filter() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program("riscv64")
