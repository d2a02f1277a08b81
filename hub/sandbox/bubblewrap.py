"""What a user server sees of the host: the bubblewrap argument list.

An empty root into which only named things are bound: what is not named here is not there. The
list is run as root (no user namespace is needed, which some distributions forbid), and
``setpriv`` then gives up root for good, before anything of the user's runs.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

_SYSTEM = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PIECES = (  # what programs of the system look up outside of these
    "/var/cache/fontconfig",
    "/var/lib/dpkg",
    "/var/lib/texmf",
    "/sys/devices/system",
)
# Until mount and setpriv have used them.
_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
TERMINALS = 128  # of one sandbox: the kernel has some 3,000 for the whole machine


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
        Read-only: (folder, place in the sandbox).
    """

    account: pwd.struct_passwd
    tmp: Path
    resolv_conf: Path
    shm: int
    read_only: Sequence[Path] = ()
    read_write: Sequence[Path] = ()
    hidden: Sequence[Path] = ()
    mounts: Sequence[tuple[Path, str]] = field(default_factory=tuple)


def arguments(view: View) -> list[str]:
    """Return bubblewrap's arguments.

    Raises
    ------
    SandboxError
        The home is not the user's own folder, or a shared folder is missing.
    """
    home = own_home(view.account)
    args = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]
    args.append("--new-session")  # no terminal of whoever started the portal
    args += _mounts(view, home)
    for capability in _CAPABILITIES:
        args += ["--cap-add", capability]
    return args


def as_user(account: pwd.struct_passwd, more: Iterable[int] = ()) -> list[str]:
    """Return what goes in front of the server's command, inside: from root to the user.

    Parameters
    ----------
    account : struct_passwd
        The user's.
    more : iterable of int
        Unix groups that it has beside the account's own.
    """
    groups = sorted({*os.getgrouplist(account.pw_name, account.pw_gid), *more})
    # bubblewrap mounts the terminals itself, and knows no option for their number.
    options = f"remount,nosuid,noexec,newinstance,ptmxmode=0666,mode=620,max={TERMINALS}"
    limit = f'mount -n -t devpts -o {options} devpts /dev/pts && exec "$@"'
    args = ["sh", "-c", limit, "sh"]
    args += ["setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid)]
    args += ["--groups", ",".join(str(group) for group in groups), "--no-new-privs"]
    args += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    # Only now: root without its capabilities may not enter a home on a network file system.
    return [*args, "env", f"--chdir={account.pw_dir}"]


def _mounts(view: View, home: Path) -> list[str]:
    """Return the mounts, in their order: a later one may lie inside an earlier one."""
    tree = _Tree()
    for name in _SYSTEM:
        tree.system(Path("/") / name)
    tree.args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"]
    tree.args += ["--perms", "1777", "--size", str(view.shm), "--tmpfs", "/dev/shm"]  # noqa: S108
    tree.args += ["--bind", str(view.tmp), "/tmp", "--perms", "0755", "--dir", "/var"]  # noqa: S108
    tree.args += ["--bind", str(view.tmp), "/var/tmp", "--symlink", "../run", "/var/run"]  # noqa: S108
    for piece in _PIECES:
        if Path(piece).is_dir():
            tree.bind("--ro-bind", Path(piece), piece)
    for source, place in view.mounts:
        tree.bind("--ro-bind", source, place)
    early, late = _split([*view.read_only, *view.read_write], view.hidden)
    for folder in early:
        tree.folder(folder, view.read_write)
    for folder in view.hidden:
        tree.hide(folder)
    for folder in late:
        tree.folder(folder, view.read_write)
    tree.bind("--ro-bind", view.resolv_conf, os.path.realpath("/etc/resolv.conf"))
    for place in dict.fromkeys((view.account.pw_dir, str(home))):
        tree.bind("--bind", home, place)
    return tree.args


class _Tree:
    """The new root, as bubblewrap's arguments."""

    def __init__(self) -> None:
        self.args: list[str] = []
        self._bound: set[Path] = set()
        self._made: set[Path] = set()

    def system(self, root: Path) -> None:
        """Show a folder of the system, or the link that it is (/bin -> usr/bin)."""
        if root.is_symlink():
            self.args += ["--symlink", str(root.readlink()), str(root)]
        elif root.is_dir():
            self.bind("--ro-bind", root, str(root))

    def folder(self, folder: Path, writable: Sequence[Path]) -> None:
        """Show a folder at its own place."""
        if not folder.is_dir():
            raise SandboxError(f"the folder {folder}, which user servers should see, is missing")
        self.bind("--bind" if folder in writable else "--ro-bind", folder, str(folder))

    def hide(self, folder: Path) -> None:
        """Empty a folder that a bind above it shows."""
        if self._shown(folder) and folder.is_dir():
            self.args += ["--tmpfs", str(folder)]
            self._bound.discard(folder)
            self._made = {path for path in self._made if folder not in path.parents}

    def bind(self, how: str, source: Path, place: str) -> None:
        """Bind; the folders on the way can be entered by all, whatever the umask is."""
        for parent in reversed(Path(place).parents[:-1]):
            if parent not in self._made and not self._shown(parent):
                self._made.add(parent)
                self.args += ["--perms", "0755", "--dir", str(parent)]
        self.args += [how, str(source), place]
        self._bound.add(Path(place))

    def _shown(self, folder: Path) -> bool:
        return any(folder == path or path in folder.parents for path in self._bound)


def own_home(account: pwd.struct_passwd) -> Path:
    """Return the real place of an account's home.

    One that others may enter stays so, for who works on this machine without the portal: no
    sandbox shows another person's home. Homes that the portal makes are closed.

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
            log.warning(
                "The home %s of %s is open to other accounts of this machine (mode %04o);"
                " chmod 700 closes it",
                home,
                account.pw_name,
                stat.S_IMODE(status.st_mode),
            )
    finally:
        os.close(descriptor)
    return home


def environment_folders(environments: Path) -> list[Path]:
    """Return all that the environments are made of, wherever it lies on the host.

    An environment may be a link, and the Python behind it may be one that its owner brought:
    both are needed at their own places.
    """
    shown = {Path(os.path.realpath(f"/{name}")) for name in _SYSTEM} | {environments, Path("/")}
    found = [environments]
    for entry in sorted(environments.iterdir()) if environments.is_dir() else ():
        for path in (Path(os.path.realpath(entry)), *_pythons(entry / "pyvenv.cfg")):
            if path.is_dir() and path != Path("/") and not shown & {path, *path.parents[:-1]}:
                shown.add(path)
                found.append(path)
    return found


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
