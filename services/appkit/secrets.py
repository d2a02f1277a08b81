"""The secret by which an app knows the gate. Standard library only: every environment reads it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

HEADER = "X-Labhub-App-Secret"
VARIABLE = "LABHUB_APP_SECRET"
_SHORTEST = 16  # characters


def checked(secret: str) -> str:
    """Return a secret that is one.

    Raises
    ------
    ValueError
        There is none: anybody could say who they are.
    """
    if len(secret) < _SHORTEST:
        text = f"the app's secret is missing or shorter than {_SHORTEST} characters"
        raise ValueError(text)
    return secret


def shown(values: Sequence[str], secret: str) -> bool:
    """Return whether a request's headers of this name are the gate's: one, and the secret."""
    return len(values) == 1 and hmac.compare_digest(
        values[0].encode("utf-8", "surrogateescape"), secret.encode()
    )
