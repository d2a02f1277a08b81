"""What makes a password too weak, and how it is kept."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import bcrypt

SHORTEST = 10
LONGEST_BYTES = 72  # bcrypt reads no more


def problems(password: str, again: str, name: str = "") -> list[str]:
    """Say all that is wrong with a new password; nothing where it is fine.

    Parameters
    ----------
    password, again : str
        What was typed, twice.
    name : str
        The user's name, which must not be part of it.
    """
    weaknesses = []
    if len(password) < SHORTEST:
        weaknesses.append(f"The password needs at least {SHORTEST} characters.")
    if len(password.encode()) > LONGEST_BYTES:
        weaknesses.append(f"The password is longer than {LONGEST_BYTES} bytes.")
    if not password.isprintable():
        weaknesses.append("The password has a line break or another control character.")
    if _is_common(password):
        weaknesses.append("The password is one of those that everybody tries first.")
    if len(name) > 2 and name in password.lower():
        weaknesses.append("The password has the user name in it.")
    if password != again:
        weaknesses.append("The two passwords differ.")
    return weaknesses


def hashed(password: str) -> bytes:
    """Return bcrypt's hash of a password; takes about 0.2 s on purpose."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())


def matches(password: str, known: bytes | None) -> bool:
    """Whether a password has this hash; takes as long where there is none to compare with."""
    secret = password.encode()
    right = bcrypt.checkpw(secret[:LONGEST_BYTES], known or _nobodys())
    return right and known is not None and len(secret) <= LONGEST_BYTES


@cache
def _nobodys() -> bytes:
    return hashed("nobody has this password")


@cache
def _common() -> frozenset[str]:
    text = (files("nativeauthenticator") / "common-credentials.txt").read_text(encoding="utf-8")
    return frozenset(line.strip().lower() for line in text.splitlines() if line.strip())


def _is_common(password: str) -> bool:
    """Whether it is a common password, alone or with digits and signs around it."""
    lower = password.lower()
    core = lower.strip("0123456789!.?*#$ _-")
    return lower in _common() or core in _common() or len(set(lower)) <= 3
