"""What a published dataset may be called and say: one list for notebook and service.

Standard library only.
"""

from __future__ import annotations

import re

from labkit.portal.publishing.rules import Rules, Text

RULES = Rules(
    noun="a dataset",
    name=re.compile(r"[a-z][a-z0-9_-]{0,47}", re.ASCII),
    name_most=48,
    name_rule="1 to 48 small letters, digits, - and _, and begins with a letter",
    texts={
        "title": Text(120, needed=True),
        "description": Text(2000, multiline=True),
        "organism": Text(100, multiline=True),
        "tissue": Text(200, multiline=True),
    },
)
PNG = b"\x89PNG\r\n\x1a\n"
THUMBNAIL_BYTES = 400_000
THUMBNAIL_PIXELS = 1024


def is_thumbnail(content: bytes) -> bool:
    """Return whether bytes are a PNG of a size that a catalogue shows."""
    if len(content) > THUMBNAIL_BYTES or content[:8] != PNG or content[12:16] != b"IHDR":
        return False
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    return 0 < width <= THUMBNAIL_PIXELS and 0 < height <= THUMBNAIL_PIXELS
