"""Nodes whose servers may have networks of their own: /dev/net/tun is open to all on them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

TUN = Path("/dev/net/tun")


def _kernel_has_tun() -> bool:
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError:
        return False
    return True


_POSSIBLE = Path("/usr/bin/slirp4netns").exists() and _kernel_has_tun()
needs_namespaces = pytest.mark.skipif(
    not _POSSIBLE,
    reason="needs slirp4netns, and a kernel with /dev/net/tun",
)


def open_device(folder: Path) -> Path:
    """Make /dev/net/tun again in a folder, with the rights that udev gives it; needs root."""
    device = folder / "tun"
    if not device.exists():
        os.mknod(device, 0o666 | 0o020000, os.makedev(10, 200))
        device.chmod(0o666)
    return device


@contextlib.contextmanager
def nodes_with_tun(folder: Path) -> Iterator[None]:
    """Let test clusters that are made meanwhile have nodes with a /dev/net/tun for everybody.

    The machine's own is left as it is: each slurmd has the other in a mount namespace. Where the
    kernel has none, the clusters have none, either.
    """
    if not _POSSIBLE:
        yield
        return
    slurmd = shutil.which("slurmd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert slurmd is not None
    device = open_device(folder)
    mount = f'mount --bind {shlex.quote(str(device))} {TUN} && exec {slurmd} "$@"'
    program = folder / "slurmd"
    program.write_text(f'#!/bin/sh\nexec unshare --mount sh -c {shlex.quote(mount)} slurmd "$@"\n')
    program.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path
