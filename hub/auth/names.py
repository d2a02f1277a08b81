"""Which user names there are: one strict rule for every way to log in."""

from __future__ import annotations

import re

from jupyterhub.auth import Authenticator

from hub.fields import USER_NAME

RULE = (
    "A user name is 1 to 31 lower-case letters (a-z), digits, hyphens and underscores, "
    "and begins with a letter."
)
RESERVED = frozenset({"root"})
_NAME = re.compile(USER_NAME)


def is_valid(name: str) -> bool:
    """Whether a normalized name may be a user's."""
    return _NAME.fullmatch(name) is not None and name not in RESERVED


def shown(value: object) -> str:
    """Write a hostile value short and harmless, for messages and logs."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}… ({len(str(value))} characters)"


class StrictNames(Authenticator):
    """A mixin: names become a Unix account, a host name, a path; nothing else may pass."""

    def normalize_username(self, username: str) -> str:
        """Lower-case an ASCII name; others stay, and are refused.

        Unicode's lower case would turn look-alikes into letters (the Kelvin sign into k).
        """
        return username.lower() if username.isascii() else username

    def validate_username(self, username: str) -> bool:
        """Whether JupyterHub may know a user of this name."""
        return is_valid(username)
