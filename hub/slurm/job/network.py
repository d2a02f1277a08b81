"""A network of its own for a user server in its job.

Part of the job script, as `hub.slurm.job.node`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import time

from hub.slurm.job.announce import connect
from hub.slurm.job.broker import UNUSABLE, begin
from hub.slurm.job.node import LaunchError, die_with_parent, say

SLIRP_TIMEOUT = 10.0
DNS_TIMEOUT = 3.0
RESOLV = "/etc/resolv.conf"
SLIRP_DNS = "10.0.2.3"  # where slirp4netns answers, as the node's own resolver would
NEWUSER, NEWNET, NEWNS = 0x10000000, 0x40000000, 0x20000  # linux/sched.h
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000  # linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


def unshare() -> None:
    """Give this process a user, a network and a mount namespace; OSError where it may not."""
    uid, gid = os.getuid(), os.getgid()
    _checked(ctypes.CDLL(None, use_errno=True).unshare(NEWUSER | NEWNET | NEWNS))
    # The user stays who they are: files, munge and SLURM know them as before.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123 - as short as can be
            stream.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        flags = fcntl.ioctl(probe, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        up = struct.unpack("16sH14x", flags)[1] | IFF_UP
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", up))


class Outward:
    """slirp4netns, which connects a namespace with the world; it must begin outside of it."""

    def __init__(self) -> None:
        program = shutil.which("slirp4netns", path="/usr/bin:/usr/local/bin:/bin")
        if program is None:
            raise OSError(2, "slirp4netns is not installed")
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise OSError(13, "/dev/net/tun may not be used")
        self._program = program
        self._go, go = os.pipe()
        self._ready, ready = os.pipe()
        self._target = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            # Not yet: there is no namespace before the parent has made one.
            die_with_parent()
            os.close(go)
            if not os.read(self._go, 1):
                os._exit(0)
            os.set_inheritable(ready, True)
            words = [program, "--configure", "--mtu=65520", "--disable-host-loopback"]
            words += [f"--ready-fd={ready}", str(self._target), "tap0"]
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            with contextlib.suppress(OSError):
                os.execv(program, words)  # noqa: S606 - no shell
            os._exit(127)
        os.close(self._go)
        os.close(ready)
        self._gate = go

    def connect(self) -> None:
        """Let it begin; raises OSError where it cannot."""
        os.write(self._gate, b"1")
        if not select.select([self._ready], [], [], SLIRP_TIMEOUT)[0] or not os.read(
            self._ready, 1
        ):
            raise OSError(5, "slirp4netns does not work here")

    def cancel(self) -> None:
        """End it."""
        os.close(self._gate)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)


def own_resolver() -> None:
    """Put slirp4netns' resolver in the place of one on loopback, which is out of reach here.

    Where systemd-resolved or dnsmasq runs, /etc/resolv.conf names 127.0.0.53 or the like: the
    node's loopback, not this namespace's. Raises OSError.
    """
    text = resolver(_read(RESOLV)) if os.path.exists(RESOLV) else None  # noqa: PTH110
    if text is None:
        return
    handle, path = tempfile.mkstemp(prefix="labhub-resolv-")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.chmod(path, 0o644)  # noqa: PTH101 - no secret, and programs of the server's read it
        mount = ctypes.CDLL(None, use_errno=True).mount
        # What the node mounts later is seen here, nothing of here is seen there.
        _checked(mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None))
        target = os.path.realpath(RESOLV).encode()
        _checked(mount(path.encode(), target, None, ctypes.c_ulong(MS_BIND), None))
    finally:
        os.unlink(path)  # noqa: PTH108 - the mount keeps it


def resolver(text: str) -> str | None:
    """Return a resolv.conf without servers on loopback; None where it has none of them."""
    lines, changed = [], False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1 and _on_loopback(words[1]):
            changed = True
            line = f"nameserver {SLIRP_DNS}"
            if line in lines:
                continue
        lines.append(line)
    if not any(line.split()[:1] == ["nameserver"] for line in lines):
        return text + f"\nnameserver {SLIRP_DNS}\n"  # without any, 127.0.0.1 is asked
    return "\n".join(lines) + "\n" if changed else None


def _on_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _read(path: str) -> str:
    try:
        with open(path) as stream:  # noqa: PTH123 - as short as can be
            return stream.read()
    except OSError:
        return ""


def _checked(code: int) -> None:
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def separate(wish: str, hub: str, shim: str) -> bool:
    """Enter a network of one's own, as far as it is wished and possible.

    Nothing is entered that does not work: a probe in a child process tells before.

    Parameters
    ----------
    wish : str
        slurm.network of the lab file.
    hub : str
        The hub's address, which must be reached from there as it is without.
    shim : str
        The program that is laid over the commands which nodes connect to (`hub.slurm.job.broker`).
    """
    if wish == "shared":
        return False
    why = try_network(hub)
    if why:
        text = f"this node gives no network namespace ({why})"
        if wish == "namespace":
            raise LaunchError(f"{text}, and the lab file asks for one (slurm.network: namespace)")
        say(f"{text}: other people on this node can reach the ports that you open here")
        return False
    outside = begin()
    try:
        _enter()
    except OSError as error:  # there is no way back out of a namespace
        reason = error.strerror or error
        raise LaunchError(f"its network worked a moment ago, and does not now: {reason}") from None
    if outside is not None:
        try:
            outside.cover(shim)
        except OSError as error:
            say(f"{UNUSABLE}: {error.strerror}: {error.filename}")
    say("the server has a network of its own: its 127.0.0.1 is nobody else's")
    return True


def _enter() -> Outward:
    outward = Outward()
    try:
        unshare()
        own_resolver()
        outward.connect()
    except OSError:
        outward.cancel()
        raise
    return outward


def try_network(hub: str) -> str:
    """Try the whole in a process that is then thrown away; say why it fails, empty: it works.

    Names are found and the hub is reached in the namespace if they are outside of it.

    Parameters
    ----------
    hub : str
        The hub's address.
    """
    names = _names_answer()
    outside = _unreached(hub)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        why = ""
        try:
            outward = _enter()
            try:
                if names and not _names_answer():
                    why = "names are not found in it"
                elif not outside:
                    reason = _unreached(hub)
                    why = f"the hub is not reached from it: {reason}" if reason else ""
            finally:
                outward.cancel()
        except OSError as error:
            why = str(error.strerror or error)
        os.write(writing, why.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    said = b""
    while block := os.read(reading, 500):
        said += block
    os.close(reading)
    return said.decode(errors="replace")


def _unreached(hub: str) -> str:
    try:
        connect(hub)
    except OSError as error:
        return str(error.strerror or error)
    return ""


def _names_answer() -> bool:
    """Whether a nameserver of this network answers at all, whatever it says."""
    servers = [
        words[1]
        for words in (line.split() for line in _read(RESOLV).splitlines())
        if words[:1] == ["nameserver"] and len(words) > 1
    ]
    # A question for the root's nameservers, which every resolver answers, if by a refusal.
    question = struct.pack("!6H", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0) + b"\0\0\2\0\1"
    sockets = []
    try:
        for server in servers[:3] or ["127.0.0.1"]:
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            client = socket.socket(family, socket.SOCK_DGRAM)
            sockets.append(client)
            with contextlib.suppress(OSError):
                client.connect((server.partition("%")[0], 53))
                client.send(question)
        waiting, end = list(sockets), time.monotonic() + DNS_TIMEOUT
        while waiting and time.monotonic() < end:
            for client in select.select(waiting, [], [], end - time.monotonic())[0]:
                waiting.remove(client)
                with contextlib.suppress(OSError):  # nobody listens there
                    return bool(client.recv(4096))
        return False
    finally:
        for client in sockets:
            client.close()
