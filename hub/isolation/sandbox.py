"""What a user server sees of the host: the bubblewrap argument list.

An empty root into which only named things are bound: what is not named here is not there. The
list is run as root (no user namespace is needed, which some distributions forbid), and
``setpriv`` then gives up root for good, before anything of the user's runs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SYSTEM = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PIECES = (  # what programs of the system look up outside of these
    "/var/cache/fontconfig",
    "/var/lib/dpkg",
    "/var/lib/texmf",
    "/sys/devices/system",
)
_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")  # until setpriv has used them


class SandboxError(OSError):
    """A folder that the server needs is missing or is not the user's."""


@dataclass(frozen=True)
class View:
    """What one user server sees.

    Attributes
    ----------
    account : struct_passwd
        Whose server it is.
    tmp : Path
        Becomes /tmp and /var/tmp.
    resolv_conf : Path
        Becomes /etc/resolv.conf.
    shm : int
        Size of /dev/shm in bytes.
    read_only, read_write : sequence of Path
        Further folders, seen at the same place.
    hidden : sequence of Path
        Folders that must not be seen, though one above them is.
    mounts : sequence of (Path, str)
        Read-only: (folder, place in the box).
    """

    account: pwd.struct_passwd
    tmp: Path
    resolv_conf: Path
    shm: int
    read_only: Sequence[Path] = ()
    read_write: Sequence[Path] = ()
    hidden: Sequence[Path] = ()
    mounts: Sequence[tuple[Path, str]] = field(default_factory=tuple)


def command(view: View, namespace: Path) -> list[str]:
    """Return what goes in front of the server's command.

    Parameters
    ----------
    view : View
        What the server sees.
    namespace : Path
        Its network namespace.

    Raises
    ------
    SandboxError
        The home is not the user's own folder, or a shared folder is missing.
    """
    account = view.account
    home = own_home(account)
    roots = [Path("/") / name for name in _SYSTEM]
    args = ["nsenter", f"--net={namespace}", "--", "bwrap"]
    args += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]
    for root in roots:
        if root.is_symlink():
            args += ["--symlink", str(root.readlink()), str(root)]
        elif root.is_dir():
            args += ["--ro-bind", str(root), str(root)]
    args += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/run",
        "--symlink",
        "../run",
        "/var/run",
    ]
    args += ["--perms", "1777", "--size", str(view.shm), "--tmpfs", "/dev/shm"]  # noqa: S108
    args += ["--bind", str(view.tmp), "/tmp", "--bind", str(view.tmp), "/var/tmp"]  # noqa: S108
    for piece in _PIECES:
        args += ["--ro-bind-try", piece, piece]
    for source, place in view.mounts:
        args += ["--ro-bind", str(source), place]
    early, late = _split([*view.read_only, *view.read_write], view.hidden)
    args += _binds(early, view.read_write)
    seen = [*roots, *early]
    for folder in view.hidden:
        if any(folder == above or above in folder.parents for above in seen) and folder.is_dir():
            args += ["--tmpfs", str(folder)]
    args += _binds(late, view.read_write)
    args += ["--ro-bind", str(view.resolv_conf), os.path.realpath("/etc/resolv.conf")]
    for place in dict.fromkeys((account.pw_dir, str(home))):
        args += ["--bind", str(home), place]
    for capability in _CAPABILITIES:
        args += ["--cap-add", capability]
    groups = sorted(set(os.getgrouplist(account.pw_name, account.pw_gid)))
    args += ["--", "setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid)]
    args += ["--groups", ",".join(str(group) for group in groups), "--no-new-privs"]
    args += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    # Only now: root without its capabilities may not enter a home on a network file system.
    return [*args, "env", f"--chdir={account.pw_dir}"]


def own_home(account: pwd.struct_passwd) -> Path:
    """Return the real place of an account's home, closed to everybody else (0700).

    Raises
    ------
    SandboxError
        It is missing, or belongs to somebody else.
    """
    home = Path(os.path.realpath(account.pw_dir))
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise SandboxError(
            f"the home {account.pw_dir} of {account.pw_name} cannot be used: {error.strerror}"
        ) from error
    try:
        status = os.fstat(descriptor)
        if status.st_uid != account.pw_uid:
            raise SandboxError(
                f"the home {account.pw_dir} does not belong to {account.pw_name}:"
                " an administrator can give it back with chown"
            )
        if status.st_mode & 0o077:
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return home


def environment_folders(environments: Path) -> list[Path]:
    """Return all that the environments are made of, wherever it lies on the host.

    An environment may be a link, and the Python behind it may be one that its owner brought:
    both are needed at their own places.
    """
    found = [environments]
    for entry in sorted(environments.iterdir()) if environments.is_dir() else ():
        found.append(Path(os.path.realpath(entry)))
        found += _pythons(entry / "pyvenv.cfg")
    system = {Path(os.path.realpath(f"/{name}")) for name in _SYSTEM}
    return [
        path
        for path in dict.fromkeys(found)
        if path.is_dir() and path != Path("/") and not system & {path, *path.parents}
    ]


def _pythons(file: Path) -> list[Path]:
    """Return the folder of the Python that a virtual environment was made from."""
    if not file.is_file():
        return []
    pairs = (line.partition("=") for line in file.read_text().splitlines())
    homes = [value.strip() for name, _, value in pairs if name.strip() == "home"]
    return [Path(os.path.realpath(home)).parent for home in homes]


def _split(folders: Iterable[Path], hidden: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Tell the folders that lie inside a hidden one, which are bound after it is hidden."""
    early: list[Path] = []
    late: list[Path] = []
    for folder in dict.fromkeys(folders):
        inside = any(folder == place or place in folder.parents for place in hidden)
        (late if inside else early).append(folder)
    return early, late


def _binds(folders: Iterable[Path], writable: Iterable[Path]) -> list[str]:
    args: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise SandboxError(f"the folder {folder}, which user servers should see, is missing")
        args += ["--bind" if folder in writable else "--ro-bind", str(folder), str(folder)]
    return args
