"""Container images of a few files, written without a builder, as ``docker save`` writes them."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Of this machine's system: all is in /usr, which a pod mounts.
_MERGED = ("bin", "sbin", "lib", "lib64")
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
MACHINE = "localhost/machine:1"


def write(path: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str] = ()) -> None:
    """Write an image archive.

    Parameters
    ----------
    path : Path
        The archive.
    name : str
        The image's name and tag.
    files : mapping of str to Path
        Place in the image -> program that is put there.
    entrypoint : sequence of str
        What a container runs.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for place, source in files.items():
            info = tarfile.TarInfo(place.lstrip("/"))
            info.size, info.mode = source.stat().st_size, 0o755
            with source.open("rb") as file:
                tar.addfile(info, file)
    _write(path, name, layer.getvalue(), {"Entrypoint": list(entrypoint)})


def write_machine(path: Path) -> None:
    """Write the image of nothing: a pod mounts this machine's /usr and environments into it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder, mode in (("usr", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, mode
            tar.addfile(info)
        for folder in _MERGED:
            info = tarfile.TarInfo(folder)
            info.type, info.linkname = tarfile.SYMTYPE, f"usr/{folder}"
            tar.addfile(info)
        info = tarfile.TarInfo("etc/passwd")
        info.size, info.mode = len(_ACCOUNTS), 0o644
        tar.addfile(info, io.BytesIO(_ACCOUNTS.encode()))
    _write(path, MACHINE, layer.getvalue(), {"Env": ["PATH=/usr/bin:/bin"]})


def _write(path: Path, name: str, layer: bytes, settings: Mapping[str, object]) -> None:
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    members = {
        config_name: config,
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
