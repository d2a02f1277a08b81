"""Uploads by the bare API, as somebody else's program would send them."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from tests.services.cellxgene.gate import Service, Who


def announcement(content: bytes, **fields: Any) -> dict[str, Any]:
    """Return what announces a file."""
    return {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "source": {"kind": "memory", "digest": "blake2b:" + "0" * 32},
        **fields,
    }


def send(service: Service, who: Who, name: str, content: bytes, **fields: Any) -> dict[str, Any]:
    """Announce and send a file; return how it ended."""
    announced = announcement(content, **{"groups": [], **fields})
    with service.client(who) as client:
        answer = client.post(f"_/api/datasets/{name}/versions", json=announced)
        assert answer.status_code == 201, answer.text
        upload = f"_/api/uploads/{answer.json()['id']}"
        sent = client.put(upload, content=content)
        assert sent.status_code in (202, 422), sent.text
        return wait(client, upload)


def wait(client: Any, upload: str, seconds: float = 60) -> dict[str, Any]:
    """Wait until an upload has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told = dict(client.get(upload).json())
        if told["state"] in ("published", "refused"):
            return told
        time.sleep(0.05)
    raise AssertionError(f"it has not ended: {told}")
