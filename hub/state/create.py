"""The portal's first state: its folders, the lab file, the secrets."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from hub.state import secrets as places
from hub.state.paths import REPOSITORY, Paths
from labkit.base import files
from labkit.base.problems import Problem, ProblemsError

_BYTES = 32
GENERATED = (
    "cookie_secret",
    "proxy_token",
    "crypt_key",
    "culler_token",
    "control_token",
    "gate_key",
)


def make_folders(paths: Paths) -> None:
    """Make the folders; none but the environments is open to others.

    Raises
    ------
    ProblemsError
        They cannot be made or written, or belong to somebody else.
    """
    try:
        # Other accounts pass through to the environments, and see nothing on the way.
        if not paths.state.is_dir():
            _make(paths.state, 0o711 if os.geteuid() == 0 else 0o700)
        if paths.state.stat().st_mode & 0o022:
            raise PermissionError(13, "other accounts can write to it", str(paths.state))
        for folder in (paths.secrets, paths.log, paths.run, paths.backups):
            _make(folder, 0o700)
        paths.envs.mkdir(parents=True, exist_ok=True)
        if paths.envs.parent == paths.state and paths.envs.stat().st_uid == os.geteuid():
            paths.envs.chmod(0o755)
    except OSError as error:
        hint = "use the account that owns it, or set LABHUB_STATE to a folder of your own"
        text = f"cannot be used: {error.strerror}"
        raise ProblemsError([Problem(str(error.filename), text, hint)]) from None


def make_lab_file(paths: Paths, source: Path | None = None) -> bool:
    """Put the lab file in place where there is none.

    Parameters
    ----------
    paths : Paths
        Where the portal keeps its state.
    source : Path, optional
        A lab file to link to instead of a copy of the example.

    Returns
    -------
    bool
        Whether it was made now.
    """
    target = paths.lab_file
    if source is not None:
        _link(target, source.absolute())
        return False
    if target.exists() or target.is_symlink():
        return False
    files.write_atomic(
        target,
        (REPOSITORY / "config" / "lab.yaml").read_text(encoding="utf-8"),
        mode=0o640,
        sync=True,
    )
    return True


def make_secrets(paths: Paths, mounted: Path | None = None) -> list[str]:
    """Generate the secrets that are missing; those there, or mounted, are kept.

    Returns
    -------
    list of str
        The names of those made now.
    """
    made = []
    for name in GENERATED:
        path = places.place(paths, name, mounted)
        if not path.exists():
            files.write_atomic(path, secrets.token_hex(_BYTES) + "\n", mode=0o600, sync=True)
            made.append(name)
    return made


def secret_problems(paths: Paths, mounted: Path | None = None) -> list[Problem]:
    """Say what is wrong with the generated secrets that are there, without telling them."""
    found = []
    for name in GENERATED:
        path = places.place(paths, name, mounted)
        hint = f"rm {path}: 'labhub up' makes a new one"
        if path.parent != paths.secrets:
            hint = f"correct it where {path} comes from (mode 440 or less)"
        try:
            mode = path.stat().st_mode
            value = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            found.append(Problem(str(path), f"cannot be read: {reason}"))
            continue
        if mode & places.closed_to(path, mounted):
            mode_text = f"{stat.S_IMODE(mode):o}"
            text = f"other accounts can read it (mode {mode_text})"
            found.append(Problem(str(path), text, hint))
        if not _is_random(value):
            text = f"is no secret: {_BYTES * 2} random hexadecimal digits are needed"
            found.append(Problem(str(path), text, hint))
    return found


def read_secret(paths: Paths, name: str, mounted: Path | None = None) -> str:
    """Return one of the generated secrets.

    Raises
    ------
    ProblemsError
        It is missing, open to others, too short or a sample.
    """
    found = [p for p in secret_problems(paths, mounted) if Path(p.where).name == name]
    if found:
        raise ProblemsError(found)
    path = places.place(paths, name, mounted)
    if not path.exists():
        raise ProblemsError([Problem(str(path), "is missing", "labhub up makes it")])
    return path.read_text(encoding="utf-8").strip()


def _is_random(value: str) -> bool:
    """Whether it is hexadecimal, long enough and not one character over and over."""
    with contextlib.suppress(ValueError):
        return len(value) >= 2 * _BYTES and len(set(bytes.fromhex(value))) >= _BYTES // 3
    return False


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(13, "it belongs to another account", str(folder))
    if stat.S_IMODE(status.st_mode) != mode:
        folder.chmod(mode)


def _link(target: Path, source: Path) -> None:
    if target.is_symlink() and target.readlink() == source:
        return
    if source == target:
        return
    if target.exists() and not target.is_symlink():
        target.replace(target.with_name("lab.yaml.before"))
    target.unlink(missing_ok=True)
    target.symlink_to(source)
