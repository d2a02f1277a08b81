"""Start a user server inside its job: its port, its network, the hub's connections to it.

This text is part of the job script and runs on a compute node as the server's owner: standard
library only, Python 3.9 or newer, nothing of Labhub at hand. ``python -I -S -c TEXT SETTINGS
COMMAND...``; the settings are JSON and hold no secret.

The server listens on 127.0.0.1, in a network namespace of its own where the node allows one.
This process listens on the node's own port, hands on what comes from the hub's host, and
closes everything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit, urlunsplit

BLOCK = 1 << 18
CONNECTIONS = 1024  # at once
HUB_TIMEOUT = 300.0  # seconds that the hub may be away while the server starts
SLIRP_TIMEOUT = 10.0
NEWUSER, NEWNET = 0x10000000, 0x40000000  # linux/sched.h
KEYCTL = {"x86_64": 250, "aarch64": 219}  # asm/unistd.h
JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
OOM = "/proc/self/oom_score_adj"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


class LaunchError(Exception):
    """The server cannot be started; the text says why."""


def die_with_parent() -> None:
    """Let the kernel end this process when its parent is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_node() -> None:
    """Leave behind what a job takes over from the node's slurmd, whose other jobs do, too.

    A session keyring of its own; signals, umask and protection from the OOM killer set anew.
    The limits are the node's own (``--propagate=NONE``), its files are closed by subprocess.
    """
    number = KEYCTL.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if number is None or libc.syscall(number, JOIN_SESSION_KEYRING, None) < 0:
        code = ctypes.get_errno()
        if number is None or code != errno.ENOSYS:  # a kernel without keyrings shares none
            say("this node gives no session keyring: other jobs may read keys that are put there")
    # Python itself ignores these two, and gives them back to the server.
    kept = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}
    for one in signal.valid_signals() - kept:
        with contextlib.suppress(OSError):  # the C library's own
            signal.signal(one, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    with contextlib.suppress(OSError, ValueError), open(OOM, "r+") as stream:  # noqa: PTH123
        if int(stream.read()) < 0:
            stream.seek(0)
            stream.write("0")


def say(text: str) -> None:
    """Write a line into the job's log."""
    print(f"labhub: {text}", file=sys.stderr, flush=True)


# -- the port ---------------------------------------------------------------------------------


def take(first: int, last: int, offset: int, host: str = "") -> socket.socket:
    """Take a free port of a range; two jobs of one node begin at different ones."""
    count = last - first + 1
    for number in range(count):
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Without SO_REUSEADDR nobody else can be on the port.
        try:
            taken.bind((host, first + (offset + number) % count))
        except OSError:
            taken.close()
            continue
        return taken
    raise LaunchError(f"no port from {first} to {last} is free on this node")


def announce(
    port: int,
    api: str,
    token: str,
    tls: ssl.SSLContext | None = None,
    patience: float = HUB_TIMEOUT,
) -> None:
    """Tell the hub the port; waits for a hub that is just being restarted."""
    request = urllib.request.Request(  # noqa: S310 - the hub's own address
        api.rstrip("/") + "/batchspawner",
        data=json.dumps({"port": port}).encode(),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        method="POST",
    )
    # The hub is asked directly, whatever web proxy the environment names.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
    )
    end = time.monotonic() + patience
    pause = 0.2
    while True:
        try:
            with opener.open(request, timeout=20):
                return
        except urllib.error.HTTPError as error:
            reason = f"the hub refused the server's port: {error.code} {error.reason}"
            if error.code < 500:
                raise LaunchError(reason) from None
        except OSError as error:
            reason = f"the hub at {api} cannot be reached: {getattr(error, 'reason', error)}"
        if time.monotonic() > end:
            raise LaunchError(reason)
        time.sleep(pause)
        pause = min(5.0, pause * 2)


# -- its certificate --------------------------------------------------------------------------


def unpack(env: dict[str, str]) -> str:
    """Make files of the server's certificate, for its owner alone, and name them in `env`.

    Returns the folder; empty where the portal uses no internal SSL.
    """
    text = env.pop("LABHUB_TLS", "")
    if not text:
        return ""
    # In memory where there is such a folder: a key should not lie on a disk.
    memory = "/dev/shm"  # noqa: S108 - the folder in it is made by mkdtemp
    folder = tempfile.mkdtemp(prefix="labhub-", dir=memory if os.path.isdir(memory) else None)  # noqa: PTH112
    parts = json.loads(text)
    for name, variable in (
        ("key", "JUPYTERHUB_SSL_KEYFILE"),
        ("certificate", "JUPYTERHUB_SSL_CERTFILE"),
        ("authorities", "JUPYTERHUB_SSL_CLIENT_CA"),
    ):
        path = f"{folder}/{name}.pem"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(parts[name])
        env[variable] = path
    return folder


def context(folder: str) -> ssl.SSLContext | None:
    """Return how the hub is asked with the server's certificate."""
    if not folder:
        return None
    tls = ssl.create_default_context(cafile=f"{folder}/authorities.pem")
    tls.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
    return tls


# -- the network ------------------------------------------------------------------------------


def unshare() -> None:
    """Give this process a user and a network namespace; raises OSError where it may not."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWUSER | NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
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


def separate(wish: str) -> bool:
    """Enter a network of one's own, as far as it is wished and possible.

    Nothing is entered that does not work: a probe in a child process tells before.
    """
    if wish == "shared":
        return False
    try:
        _probe()
        outward = Outward()
        unshare()
        outward.connect()
    except OSError as error:
        text = f"this node gives no network namespace ({error.strerror})"
        if wish == "namespace":
            raise LaunchError(
                f"{text}, and the lab file asks for one (slurm.network: namespace)"
            ) from None
        say(f"{text}: other people on this node can reach the ports that you open here")
        return False
    say("the server has a network of its own: its 127.0.0.1 is nobody else's")
    return True


def _probe() -> None:
    """Try the whole in a process that is then thrown away; raises OSError."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            outward = Outward()
            try:
                unshare()
                outward.connect()
            finally:
                outward.cancel()
        except OSError as error:
            os.write(writing, str(error.strerror).encode())
            code = 1
        os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    said = os.read(reading, 500).decode(errors="replace")
    os.close(reading)
    if status:
        raise OSError(1, said or "the probe failed")


# -- who may connect --------------------------------------------------------------------------


class Guard:
    """Tells the hub's connections from others.

    An address alone says nothing of who is behind it on the same machine, so of a connection
    from there the account is looked up, too.
    """

    def __init__(self, addresses: list[str], accounts: list[int]) -> None:
        self.addresses = {ipaddress.ip_address(text) for text in addresses}
        self.accounts = set(accounts)
        # Opened here, it goes on to show the node's connections from inside a namespace.
        self._table = open("/proc/net/tcp", "rb", buffering=0)  # noqa: SIM115, PTH123
        self._lock = threading.Lock()

    def admits(self, peer: tuple[str, int], here: tuple[str, int]) -> bool:
        """Whether a connection comes from the hub's host and, if that is here, its account."""
        if ipaddress.ip_address(peer[0]) not in self.addresses:
            return False
        account = self._account(_hexadecimal(peer), _hexadecimal(here))
        return account is None or account in self.accounts

    def is_mine(self, port: int) -> bool:
        """Whether it is my own process that listens on a port of 127.0.0.1."""
        return self._account(_hexadecimal(("127.0.0.1", port)), "00000000:0000") == os.getuid()

    def _account(self, near: str, far: str) -> int | None:
        """Return whose a socket of this machine is; None: there is none such."""
        with self._lock:
            self._table.seek(0)
            text = b""
            while block := self._table.read(BLOCK):
                text += block
        for line in text.decode().splitlines():
            fields = line.split()
            if fields[1:3] == [near, far]:
                return int(fields[7])
        return None


def _hexadecimal(place: tuple[str, int]) -> str:
    """Write an address as /proc/net/tcp does."""
    number = struct.unpack("=I", socket.inet_aton(place[0]))[0]
    return f"{number:08X}:{place[1]:04X}"


# -- handing on -------------------------------------------------------------------------------


def relay(listener: socket.socket, inside: int, guard: Guard, alone: bool) -> None:
    """Hand connections of the hub on to the server, as long as this process lives."""
    slots = threading.BoundedSemaphore(CONNECTIONS)
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            time.sleep(0.1)  # too many open files: some will be closed
            continue
        if not slots.acquire(blocking=False):
            connection.close()
            continue
        threading.Thread(
            target=_serve, args=(connection, peer, inside, guard, alone, slots), daemon=True
        ).start()


def _serve(
    connection: socket.socket,
    peer: tuple[str, int],
    inside: int,
    guard: Guard,
    alone: bool,
    slots: threading.BoundedSemaphore,
) -> None:
    try:
        with connection, contextlib.suppress(OSError):
            if not guard.admits(peer, connection.getsockname()):
                say(f"a connection from {peer[0]}, which is not the hub, was closed")
                return
            # Somebody else may have been quicker to take the server's port.
            if not alone and not guard.is_mine(inside):
                return
            with socket.create_connection(("127.0.0.1", inside)) as server:
                for end in (connection, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                back = threading.Thread(target=_copy, args=(server, connection), daemon=True)
                back.start()
                _copy(connection, server)
                back.join()
    finally:
        slots.release()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, then say so to the target."""
    buffer = memoryview(bytearray(BLOCK))
    try:
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# -- the whole --------------------------------------------------------------------------------


def launch(settings: dict[str, Any], command: list[str]) -> int:
    """Start the server and return its exit status when it ends."""
    leave_node()
    first, last = settings["ports"]
    job = int(os.environ.get("SLURM_JOB_ID", "0"))
    guard = Guard(settings["addresses"], settings["accounts"])
    listener = take(first, last, job)
    listener.listen(256)
    port = listener.getsockname()[1]
    alone = separate(settings["network"])
    if alone:
        inside = port
    else:
        # Kept for the server, which may come beside it: nobody listens there yet.
        kept = take(first, last, job + (last - first) // 2, "127.0.0.1")
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        inside = kept.getsockname()[1]
    env = dict(os.environ)
    secret = unpack(env)
    place = urlsplit(env["JUPYTERHUB_SERVICE_URL"])
    env["JUPYTERHUB_SERVICE_URL"] = urlunsplit(place._replace(netloc=f"127.0.0.1:{inside}"))
    env["LABHUB_ENDS_AT"] = str(int(time.time()) + settings["seconds"])
    env["LABHUB_NETWORK"] = "own" if alone else "shared"
    try:
        server = subprocess.Popen(command, env=env, preexec_fn=die_with_parent)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: server.send_signal(number))
        threading.Thread(target=relay, args=(listener, inside, guard, alone), daemon=True).start()
        try:
            hub = env["JUPYTERHUB_API_URL"]
            announce(port, hub, env["JUPYTERHUB_API_TOKEN"], context(secret))
        except LaunchError:
            server.terminate()
            server.wait()
            raise
        status = server.wait()
    finally:
        if secret:
            shutil.rmtree(secret, ignore_errors=True)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    try:
        code = launch(json.loads(sys.argv[1]), sys.argv[2:])
    except (LaunchError, OSError) as error:
        say(f"the server could not be started: {error}")
        code = 78
    os._exit(code)
