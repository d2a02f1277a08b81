"""The system calls that a sandbox may not make: a filter for ``bwrap --seccomp``.

These are the doors into the kernel that no notebook needs and that its holes were found behind,
or that no namespace covers (keyrings). The filter is a short program of the kernel's classic BPF
(``linux/filter.h``); there is one for x86-64 and one for aarch64.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from dataclasses import dataclass

# linux/audit.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# asm/unistd.h
CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "ioctl": 16,
        "io_setup": 206,
        "socket": 41,
        "socketpair": 53,
        "clone": 56,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "bpf": 321,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "clone3": 435,
    },
    "aarch64": {
        "io_setup": 0,
        "ioctl": 29,
        "unshare": 97,
        "socket": 198,
        "socketpair": 199,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "clone": 220,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "bpf": 280,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "clone3": 435,
    },
}
REFUSED = (
    "add_key",
    "request_key",
    "keyctl",
    "perf_event_open",
    "fanotify_init",
    "bpf",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
)
CLONE_NEWUSER = 0x10000000  # linux/sched.h
AF_VSOCK = 40  # linux/socket.h
# linux/btrfs.h: make a subvolume or a snapshot, which no quota of the home counts.
SUBVOLUMES = (0x5000940E, 0x50009401, 0x50009417, 0x50009418)
_X32 = 0x40000000  # the bit of x86-64's second set of calls

# linux/bpf_common.h: load a word of the call's description; jump if equal, at least, or a bit is
# set; return.
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST, _SECOND = (
    0,
    4,
    16,
    24,
)  # where in struct seccomp_data; the low word, little-endian
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h


@dataclass(frozen=True)
class Instruction:
    """One instruction: what it does, how many it skips if true and if not, its operand."""

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0

    def encode(self) -> bytes:
        """Return it as the kernel reads it (``struct sock_filter``)."""
        return struct.pack("<HBBI", self.code, self.if_true, self.if_false, self.operand)


def known(machine: str) -> bool:
    """Whether there is a filter for a kind of processor, as `platform.machine` names it."""
    return machine in CALLS


def program(machine: str, *, user_namespaces: bool = False) -> list[Instruction]:
    """Return the filter: what is not named in it is allowed.

    Parameters
    ----------
    machine : str
        Kind of processor, as `platform.machine` names it.
    user_namespaces : bool
        Let the sandbox make user namespaces, in which a program is root of its own.

    Raises
    ------
    ValueError
        There is none for this processor.
    """
    if not known(machine):
        raise ValueError(
            f"no system call filter for {machine}; there is one for {', '.join(CALLS)}"
        )
    calls = CALLS[machine]
    out = [
        Instruction(_LOAD, _ARCH),
        # Programs for another processor (32 bits) have other numbers: nothing below would hold.
        Instruction(_EQUAL, _AUDIT_ARCH[machine], if_true=1),
        Instruction(_RETURN, _KILL),
        Instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        out += [Instruction(_AT_LEAST, _X32, if_false=1), _answer(errno.ENOSYS)]
    # One process can take the whole machine's share of it; programs then do without.
    out += [Instruction(_EQUAL, calls["io_setup"], if_false=1), _answer(errno.ENOSYS)]
    for name in REFUSED:
        out += [Instruction(_EQUAL, calls[name], if_false=1), _answer(errno.EPERM)]
    for name in ("socket", "socketpair"):
        out += _if_argument(calls[name], Instruction(_EQUAL, AF_VSOCK, if_false=1))
    out += [
        Instruction(_EQUAL, calls["ioctl"], if_false=2 + 2 * len(SUBVOLUMES)),
        Instruction(_LOAD, _SECOND),
    ]
    for number in SUBVOLUMES:
        out += [Instruction(_EQUAL, number, if_false=1), _answer(errno.EPERM)]
    out += [Instruction(_RETURN, _ALLOW)]
    if not user_namespaces:
        for name in ("unshare", "clone"):
            out += _if_argument(calls[name], Instruction(_BITS, CLONE_NEWUSER, if_false=1))
        # Its flags are in memory, where no filter can look: libraries then use clone.
        out += [Instruction(_EQUAL, calls["clone3"], if_false=1), _answer(errno.ENOSYS)]
    return [*out, Instruction(_RETURN, _ALLOW)]


def _if_argument(call: int, test: Instruction) -> list[Instruction]:
    """Refuse a call by its first argument, of which the kernel reads the low word alone."""
    return [
        Instruction(_EQUAL, call, if_false=4),
        Instruction(_LOAD, _FIRST),
        test,
        _answer(errno.EPERM),
        Instruction(_RETURN, _ALLOW),
    ]


def _answer(code: int) -> Instruction:
    return Instruction(_RETURN, _ERRNO | code)


def open_filter(*, user_namespaces: bool = False) -> int:
    """Return a file from which bubblewrap reads this machine's filter.

    Raises
    ------
    ValueError
        There is none for this processor.
    """
    instructions = program(platform.machine(), user_namespaces=user_namespaces)
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, b"".join(one.encode() for one in instructions))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
