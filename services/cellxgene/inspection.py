"""Have an uploaded file looked into, by a process of its own with bounded memory and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.viewers.cellxgene.memory import BASE_BYTES
from services.appkit.published.statements import RefusedPublishError
from services.cellxgene.records import Facts

SCRIPT = Path(__file__).with_name("inspect_file.py")
log = logging.getLogger(__name__)


def too_big(need: int, most: int, cells: int, genes: int) -> Problem:
    """Return the problem of a dataset that needs more memory than there is, with the numbers.

    Parameters
    ----------
    need, most : int
        What it needs and what there is, in bytes.
    cells, genes : int
        Its shape; 0 where it is not known, and then not told.
    """
    shape = f" for {cells:,} cells × {genes:,} genes" if cells and genes else ""
    return Problem(
        "memory",
        f"CellxGene would need {format_size(need)}{shape}; this machine gives "
        f"{format_size(most)} to all published datasets.",
        "Publish fewer genes, `adata[:, adata.var.highly_variable]`, or fewer cells.",
    )


async def look(python: Path, path: Path, *, memory: int, seconds: float) -> Facts:
    """Return the facts of a file.

    Parameters
    ----------
    python : Path
        Python of CellxGene's environment.
    path : Path
        The file.
    memory : int
        Bytes that looking may take; of a file that is larger when unpacked only the need is told.
    seconds : float
        Time that it may take.

    Raises
    ------
    RefusedPublishError
        The file is not one that ``labkit.publish`` writes; with all the reasons.
    """
    process = await asyncio.create_subprocess_exec(
        str(python),
        *("-I", "-W", "ignore", str(SCRIPT), str(path), str(memory)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(path.parent)},
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise RefusedPublishError([Problem("file", "reading it takes too long.")]) from None
        raise
    if process.returncode != 0:
        log.warning("%s: %s", path, err.decode(errors="replace")[-2000:])
        raise RefusedPublishError(
            [Problem("file", "it cannot be read.", "Use labkit.publish to send it.")]
        )
    report = json.loads(out)
    if report["problems"]:
        raise RefusedPublishError([Problem("file", text) for text in report["problems"]])
    return Facts(
        cells=report.get("cells", 0),
        genes=report.get("genes", 0),
        need=report["logical"] + BASE_BYTES,
        embeddings=tuple(report.get("embeddings", ())),
        columns=tuple(report.get("columns", ())),
    )
