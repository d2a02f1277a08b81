"""Members' own Shiny and Dash apps: what runs in an app's sandbox, in front of the member's code.

It is no app of its own (there is no ``service.yaml`` here): `hub.apps.members` makes one of each
app that a member publishes.
"""

import contextlib
import socket

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"  # where the member's code finds programs


def answers(place: str) -> bool:
    """Return whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as end, contextlib.suppress(OSError):
        end.settimeout(1)
        end.connect(place)
        return True
    return False
