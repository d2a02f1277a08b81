"""Limits of homes: by the commands of XFS and ext4, and on a real btrfs."""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.labfile.schema import Settings
from hub.runtime import doctor
from hub.sandbox import quotas
from hub.sandbox.accounts import Accounts
from hub.sandbox.quotas import FileSystem, QuotaError, command, file_system, limit, obstacle
from hub.state.paths import Paths
from tests.conftest import needs_root
from tests.security.bare_sandbox import PYTHON, bare_sandboxes, run_inside
from tests.support.portal import UNIX_GROUP

# As the kernel writes them (proc(5)): no kernel here has quotas of XFS or ext4.
TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
36 22 254:16 / /home rw,relatime shared:9 - xfs /dev/vdb rw,attr2,inode64,logbufs=8,usrquota
37 22 254:32 / /srv/two\040words rw,nosuid shared:10 - ext4 /dev/vdc rw,quota,usrquota
38 22 0:45 / /net/homes rw,relatime - nfs4 nas:/homes rw,vers=4.2,proto=tcp
39 22 254:48 / /old rw - ext4 /dev/vdd rw,jqfmt=vfsv1,usrjquota=aquota.user
40 22 254:64 / /over rw - xfs /dev/vde rw,noquota
41 22 0:50 /@home /over rw - btrfs /dev/vdf rw,space_cache=v2,subvol=/@home
"""
ADA = pwd.struct_passwd(("ada", "x", 1001, 1001, "", "/home/ada", "/bin/bash"))


@pytest.mark.parametrize(
    ("place", "kind", "mount", "why"),
    [
        ("/home/ada", "xfs", "/home", ""),
        ("/home", "xfs", "/home", ""),
        ("/homes/ada", "ext4", "/", "without user quotas"),
        ("/srv/two words/ada", "ext4", "/srv/two words", ""),
        ("/net/homes/ada", "nfs4", "/net/homes", "(nfs4) has no quotas"),
        ("/old/ada", "ext4", "/old", ""),
        ("/over/ada", "btrfs", "/over", "btrfs quota enable /over"),
    ],
)
def test_what_a_home_lies_on(place: str, kind: str, mount: str, why: str) -> None:
    on = file_system(Path(place), TABLE)
    assert (on.kind, on.mount) == (kind, Path(mount))
    said = obstacle(Path(place), on)
    assert why in said
    assert bool(why) == bool(said)


def test_what_sets_the_limit() -> None:
    def words(kind: str) -> list[str]:
        return command(ADA, (5 << 30) + 1, FileSystem(kind, Path("/home"), frozenset()))

    assert words("xfs") == [
        *("xfs_quota", "-x", "-c"),
        "limit -u bsoft=0 bhard=5368709121 1001",
        "/home",
    ]
    assert words("ext4") == ["setquota", "-u", "1001", "0", "5242881", "0", "0", "/home"]
    assert words("btrfs") == ["btrfs", "qgroup", "limit", "5368709121", "/home/ada"]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'xfs_quota: cannot set limits: Operation not permitted' >&2", "not permitted"),
        ("exit 3", "failed"),
        ("exit 0", ""),
    ],
)
def test_what_the_command_says(
    script: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "xfs_quota"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setitem(quotas._ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    on = FileSystem("xfs", Path("/home"), frozenset({"usrquota"}))
    monkeypatch.setattr(quotas, "file_system", lambda _: on)
    if not text:
        limit(ADA, 1 << 30)
        return
    with pytest.raises(QuotaError, match=text):
        limit(ADA, 1 << 30)


def test_doctor_says_where_it_is_not_enforced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path, tmp_path)
    settings = Settings.model_validate({"storage": {"home_quota": "50G", "homes": "/home"}})
    on = FileSystem("nfs4", Path("/home"), frozenset())
    monkeypatch.setattr(quotas, "file_system", lambda _: on)
    (problem,) = doctor.quota(settings, paths).problems
    assert problem.warning
    assert "nfs4" in problem.text
    on = FileSystem("xfs", Path("/home"), frozenset({"usrquota"}))
    assert doctor.quota(settings, paths).problems == ()
    assert "50 GB" in doctor.quota(settings, paths).detail
    assert "none" in doctor.quota(Settings(), paths).detail


@pytest.fixture(scope="module")
def homes() -> Iterator[Path]:
    """A btrfs with quotas, on a loop device."""
    folder = Path(tempfile.mkdtemp(prefix="labhub-btrfs-", dir="/srv"))
    folder.chmod(0o755)
    image, mount = folder / "image", folder / "homes"
    mount.mkdir()
    with image.open("wb") as stream:
        stream.truncate(256 << 20)
    try:
        for words in (
            ["mkfs.btrfs", "-q", str(image)],
            ["mount", "-o", "loop", str(image), str(mount)],
        ):
            if shutil.which(words[0], path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
                pytest.skip("needs btrfs-progs")
            if subprocess.run(words, capture_output=True, check=False).returncode:
                pytest.skip(f"this machine cannot: {' '.join(words)}")
        mount.chmod(0o755)
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], capture_output=True, check=False)
        shutil.rmtree(folder)


FILL = """
import errno, fcntl, os
try:
    with open(os.path.expanduser("~/large"), "wb", buffering=0) as stream:
        for _ in range(60):
            stream.write(os.urandom(1 << 20))
            os.fsync(stream)
except OSError as error:
    print(errno.errorcode[error.errno])
# Of subvolumes of their own nothing would count: BTRFS_IOC_SUBVOL_CREATE and its like.
home = os.open(os.path.expanduser("~"), os.O_RDONLY)
for number in (0x5000940E, 0x50009401, 0x50009417, 0x50009418):
    try:
        fcntl.ioctl(home, number, bytearray(4096))
    except OSError as error:
        print(errno.errorcode[error.errno])
os.unlink(os.path.expanduser("~/large"))
"""


@needs_root
def test_a_home_on_btrfs_has_a_limit_that_holds(homes: Path, tmp_path: Path) -> None:
    accounts = Accounts(group=UNIX_GROUP, homes=homes)
    name = f"lt{secrets.token_hex(2)}-quota"
    try:
        account = accounts.add(name)
        entry = pwd.getpwnam(name)
        assert account.home.stat().st_ino == 256  # a subvolume
        assert account.home.stat().st_mode & 0o777 == 0o700
        with pytest.raises(QuotaError, match="btrfs quota enable"):
            limit(entry, 20 << 20)
        subprocess.run(["btrfs", "quota", "enable", str(homes)], check=True, capture_output=True)
        limit(entry, 20 << 20)
        with bare_sandboxes(tmp_path, "10.240.31.0/24") as sandboxes:
            done = run_inside(sandboxes, name, [PYTHON, "-c", FILL])
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [errno.errorcode[errno.EDQUOT], *["EPERM"] * 4]
        plain = homes / "plain"
        plain.mkdir()
        assert "no subvolume" in obstacle(plain, file_system(plain))
        accounts.remove(name, keep_home=False)
        assert not account.home.exists()
    finally:
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=False)
    assert os.path.ismount(homes)
