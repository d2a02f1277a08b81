"""The secrets of gate and apps, all made from one key: a new app needs no new file."""

from __future__ import annotations

import hmac

HUB_TOKEN = "hub-token"  # noqa: S105 - purposes: the app's service token and OAuth secret
APP_SECRET = "app-secret"  # noqa: S105 - what the gate shows to the app
COOKIES = "cookies"  # signs the gate's own cookies


def derived(key: str, purpose: str, name: str = "") -> str:
    """Return one secret; without the key it tells nothing of another one.

    Parameters
    ----------
    key : str
        The gate's key, hexadecimal.
    purpose : str
        One of this module's.
    name : str
        The app's name.

    Returns
    -------
    str
        64 hexadecimal digits: HMAC-SHA256 (RFC 2104) of purpose and name.
    """
    return hmac.new(bytes.fromhex(key), f"{purpose}:{name}".encode(), "sha256").hexdigest()
