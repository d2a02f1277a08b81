"""ALT contigs: the ``.alt`` file beside a reference, which bwa needs to know them from others.

Without it a read that fits a chromosome and its alternative is one that fits two places: bwa
gives both a mapping quality of 0, and callers leave such reads out [1]_.

.. [1] https://github.com/lh3/bwa/blob/master/README-alt.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from labkit.base.problems import Problem
from labkit.workflows.alignment.task_code import objects

_ALT = re.compile(r".+_alt|HLA-.+")
_HINT = "Put bwa-kit's file beside it, e.g. as {}."


def read_alt(fasta: str, contigs: Iterable[str]) -> tuple[bytes, list[Problem]]:
    """Return the content of the ``.alt`` file beside a FASTA, and what is wrong with it.

    Returns
    -------
    bytes
        SAM records of the ALT contigs, as bwa reads them; empty where there is no file.
    list of Problem
        A file of another reference; a warning of ALT contigs without a file.
    """
    names = set(contigs)
    for path in _places(fasta):
        try:
            with objects.open_bytes(path) as file:
                content = file.read()
        except (FileNotFoundError, PermissionError):  # S3 may answer either for what is not there
            continue
        except OSError as error:
            return b"", [Problem(path, f"cannot be read: {error}.")]
        lines = content.decode("utf-8", "replace").splitlines()
        listed = {line.split("\t")[0] for line in lines if line and not line.startswith("@")}
        if listed & names:
            return content, []
        text = "names no contig of the reference."
        return b"", [Problem(Path(path).name, text, "Remove it, or take the reference's own.")]
    known = sorted(name for name in names if _ALT.fullmatch(name))
    if not known:
        return b"", []
    count = (
        f"{len(known):,} ALT contigs ({known[0]}, …)"
        if known[1:]
        else f"an ALT contig ({known[0]})"
    )
    text = (
        f"has {count} and no .alt file beside it: reads that "
        "fit them as well as a chromosome get a mapping quality of 0."
    )
    where = Path(fasta).name
    return b"", [Problem(where, text, _HINT.format(f"{where}.alt"), warning=True)]


def _places(fasta: str) -> list[str]:
    plain = fasta.removesuffix(".gz")
    stem = re.sub(r"\.(fa|fasta|fna)$", "", plain)
    return list(dict.fromkeys(f"{name}.alt" for name in (fasta, plain, stem)))
