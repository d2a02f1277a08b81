"""``labkit.Reference``: a FASTA with its dictionary and indices, made once."""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.base import files
from labkit.base.problems import LabkitError, Problem, refuse, unknown_name
from labkit.jobs.runs.manifest import environment_folder
from labkit.viewers.paths import cache_folder
from labkit.workflows.alignment import aligners
from labkit.workflows.alignment.task_code import cache, objects, pipe, programs

ENVIRONMENT = "alignment"
_GZIP = b"\x1f\x8b"
# Letters of nucleotides, also masked ones (X) and gaps; others are amino acids.
_BASES = b"ACGTUNRYKMSWBDHVXacgtunrykmswbdhvx.-"
_LOOKED_AT = 4096  # bytes of a sequence, where its .fai says the rest
_CONTIG = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")


class Reference:
    """A reference genome: FASTA, .fai, .dict and the aligners' indices, made when first needed.

    They are kept by the content of the FASTA: the same sequence under another name, or packed by
    gzip, is the same reference. Two jobs that need the same index make it once.

    Parameters
    ----------
    fasta : str or Path
        FASTA, plain or gzip, or ``s3://``.
    cache : str or Path, optional
        Where everything is kept: a folder on a disk that all nodes share, or ``s3://bucket/refs``.
        Without it ``$LABKIT_REFERENCES``, else your cache folder.
    local : str or Path, optional
        A folder on each node's own disk, which the files are copied to once per node. Needed for
        nothing; faster where the shared disk is slow. With a cache in S3 it is the scratch disk
        where you do not say.

    Examples
    --------
    >>> reference = labkit.Reference("GRCh38.fa.gz", cache="/shared/references")
    >>> reference.index("bwa-mem2")  # now, not in the first job
    """

    def __init__(
        self,
        fasta: str | os.PathLike[str],
        *,
        cache: str | os.PathLike[str] | None = None,
        local: str | os.PathLike[str] | None = None,
    ) -> None:
        text = os.fspath(fasta)
        self.fasta = text if "://" in text else str(Path(text).expanduser().absolute())
        given = os.fspath(cache) if cache is not None else os.environ.get("LABKIT_REFERENCES", "")
        if given and not objects.is_object(given):
            given = str(Path(given).expanduser().absolute())
        self._given = given
        self._local = str(Path(local).expanduser().absolute()) if local is not None else ""

    def __repr__(self) -> str:
        return f"Reference({self.fasta!r})"

    @property
    def stores(self) -> tuple[str, str]:
        """The folder that a node works with, and the store behind it.

        The folder is empty where each node shall use its scratch disk; the store is empty where
        there is none.
        """
        place = self._given or str(cache_folder("references"))
        if self._local:
            return self._local, place
        return ("", place) if objects.is_object(place) else (place, "")

    @cached_property
    def contigs(self) -> dict[str, int]:
        """Names and lengths (bases) of its sequences, in order.

        Raises
        ------
        RefusedError
            It is no FASTA, or the .fai or .dict beside it belongs to another.
        """
        lengths, problems = read_contigs(self.fasta)
        refuse(problems)
        return lengths

    @property
    def length(self) -> int:
        """Bases in all."""
        return sum(self.contigs.values())

    def ready(self, aligner: str, preset: str = "") -> bool:
        """Whether FASTA and index are in the folder of the cache already."""
        folder, _ = self.stores
        if not folder:
            return False
        store = cache.Cache(Path(folder))
        try:
            digest = store.known_digest(self.fasta)
        except OSError:
            return False
        part = programs.index_parts(aligner, preset)
        return bool(digest) and store.has(digest, cache.FASTA) and store.has(digest, part)

    def index(
        self,
        aligner: str | None = None,
        *,
        preset: str | None = None,
        cpu: int = 1,
        tell: Callable[[str], None] = print,
    ) -> Path:
        """Make what is missing here and now, in this process.

        A job does the same by itself in its first stage, where the memory is: an index of the
        human genome takes 90 GB with bwa-mem2.

        Parameters
        ----------
        aligner : {"bwa-mem2", "bwa", "minimap2"}, optional
            Without it, the one that a job would take.
        preset : str, optional
            Of minimap2; without it ``map-ont``.
        cpu : int
            Threads, where the maker can use them.
        tell : callable
            Is told what is being done.

        Returns
        -------
        Path
            What the index's files begin with.

        Raises
        ------
        LabkitError
            It cannot be made; the text says why.
        """
        chosen = aligner or ("minimap2" if preset else default_aligner())
        if chosen not in aligners.ALIGNERS:
            refuse([unknown_name("aligner", str(chosen), aligners.ALIGNERS)])
        wanted = (preset or "map-ont") if chosen == "minimap2" else ""
        if wanted and wanted not in aligners.PRESETS:
            refuse([unknown_name("preset", str(wanted), aligners.PRESETS)])
        _ = self.contigs
        folder, remote = self.stores
        with tempfile.TemporaryDirectory(prefix="labkit-reference-") as name:
            here = Path(folder) if folder else cache.node_folder(Path(tempfile.gettempdir()))
            store = cache.Cache(here, remote, tell)
            tools = programs.Tools(tool_environment(), Path(name), Path(name) / "tools.log")
            try:
                digest = store.add_fasta(self.fasta, tools)
                part = store.add_index(digest, chosen, wanted, tools, cpu)
            except pipe.Failed as error:
                raise LabkitError(f"{self.fasta}: {error.text}") from None
            except OSError as error:
                raise LabkitError(f"{self.fasta} or its cache: {error}") from error
        return store.prefix(digest, part)


def tool_environment() -> dict[str, str]:
    """Return the environment that the alignment tools are found with, here."""
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{environment_folder(ENVIRONMENT) / 'bin'}{os.pathsep}{path}"}


def default_aligner() -> str:
    """Return bwa-mem2 where the environment has it (or is not here), else bwa."""
    folder = environment_folder(ENVIRONMENT) / "bin"
    if folder.is_dir() and not os.access(folder / "bwa-mem2", os.X_OK):
        return "bwa"
    return "bwa-mem2"


def read_contigs(fasta: str) -> tuple[dict[str, int], list[Problem]]:
    """Return names and lengths of the sequences of a FASTA, and what is wrong with it.

    A .fai beside it is believed where its places are those of the FASTA; else the FASTA is read.
    """
    where = Path(fasta).name
    if text := objects.address_problem(fasta):
        return {}, [Problem("reference", f"{text}.")]
    try:
        if objects.size(fasta) == 0:
            return {}, [Problem(where, "the reference is empty.")]
        contigs, problems = _from_fai(fasta)
        if not contigs and not problems:
            contigs, problems = _remembered(fasta)
    except FileNotFoundError:
        return {}, [Problem("reference", f"there is no file {fasta}.")]
    except OSError as error:
        return {}, [Problem("reference", f"{fasta} cannot be read: {error}.")]
    if contigs:
        problems += _check_dict(fasta, contigs)
    return contigs, problems


def _from_fai(fasta: str) -> tuple[dict[str, int], list[Problem]]:
    fai = Path(f"{fasta}.fai")
    if objects.is_object(fasta) or not fai.is_file():
        return {}, []
    hint = f"Remove it, or make it anew: samtools faidx {Path(fasta).name}"
    text = f"does not belong to {Path(fasta).name}."
    wrong: list[Problem] = [Problem(fai.name, text, hint)]
    contigs: dict[str, int] = {}
    with Path(fasta).open("rb") as file:
        if file.read(2) == _GZIP:  # its places are those of the uncompressed content
            return {}, []
        size = end = os.fstat(file.fileno()).st_size
        for line in fai.read_text().splitlines():
            try:
                name, length, offset, bases, width = line.split("\t")[:5]
                rows, rest = divmod(int(length), int(bases))
                start = int(offset) - len(name.encode()) - 2
                end = int(offset) + rows * int(width) + rest
                file.seek(max(0, start - 200))
                before = file.read(int(offset) - max(0, start - 200))
            except (ValueError, ZeroDivisionError, OSError):
                return {}, wrong
            head = before.rstrip(b"\r\n").rpartition(b"\n")[2]
            if end > size or head[1:].split()[:1] != [name.encode()]:
                return {}, wrong
            if letters := _no_bases(file, int(offset)):
                return {}, [_no_dna(Path(fasta).name, name, letters)]
            if problem := _bad_name(Path(fasta).name, name):
                return {}, [problem]
            contigs[name] = int(length)
        file.seek(min(end, size))
        if not contigs or file.read(64).strip():
            return {}, wrong
    return contigs, []


def _remembered(fasta: str) -> tuple[dict[str, int], list[Problem]]:
    """Read the whole FASTA, once until it changes."""
    kept = cache_folder("contigs") / f"{cache.identity(fasta)}.json"
    try:
        content: dict[str, int] = json.loads(kept.read_text())
        return content, []
    except (OSError, ValueError):
        pass
    contigs, problems = _scan(fasta)
    if not problems:
        files.write_atomic(kept, json.dumps(contigs))
    return contigs, problems


def _scan(fasta: str) -> tuple[dict[str, int], list[Problem]]:
    where = Path(fasta).name
    contigs: dict[str, int] = {}
    problems: list[Problem] = []
    name, length = "", 0
    try:
        with objects.open_bytes(fasta) as raw:
            stream: Any = raw
            if raw.peek(2)[:2] == _GZIP:  # type: ignore[attr-defined]
                stream = gzip.GzipFile(fileobj=raw, mode="rb")
            for line in stream:
                if not line.startswith(b">"):
                    if not name:
                        text = "is no FASTA: it does not begin with '>'."
                        return {}, [Problem(where, text)]
                    bases = line.strip()
                    length += len(bases)
                    if other := bases.translate(None, _BASES):
                        return {}, [_no_dna(where, name, other)]
                    continue
                if name:
                    contigs[name] = length
                words = line[1:].split()
                name, length = words[0].decode("utf-8", "replace") if words else "", 0
                if problem := _bad_name(where, name):
                    return {}, [problem]
                if not name or name in contigs:
                    text = f"has the sequence {name!r} twice." if name else "has one without name."
                    problems.append(Problem(where, text))
    except (EOFError, gzip.BadGzipFile) as error:
        return {}, [Problem(where, f"is cut off or damaged: {error}.")]
    if name:
        contigs[name] = length
    problems += [
        Problem(where, f"the sequence {n!r} is empty.") for n, ln in contigs.items() if not ln
    ]
    return contigs, problems


def _no_bases(file: Any, offset: int) -> bytes:
    """Return what is no base among the first letters of a sequence; the file's place is lost."""
    file.seek(offset)
    first: bytes = file.read(_LOOKED_AT).partition(b">")[0]
    return first.translate(None, _BASES + b"\r\n")


def _no_dna(where: str, name: str, letters: bytes) -> Problem:
    shown = ", ".join(sorted(chr(letter) for letter in set(letters.upper())))
    text = f"the sequence {name!r} has letters that are no bases: {shown}."
    return Problem(where, text, "Is it a protein? Give the genome's FASTA.")


def _bad_name(where: str, name: str) -> Problem | None:
    """Return a problem where SAM cannot have a sequence of that name (specification, 1.2.1)."""
    if not name or _CONTIG.fullmatch(name):
        return None
    text = f"the sequence {name!r} has a name that SAM and BAM cannot hold."
    return Problem(where, text, "Give it a name of letters, digits, '.', '_' and '-'.")


def _check_dict(fasta: str, contigs: dict[str, int]) -> list[Problem]:
    """Return a problem where a dictionary beside the FASTA belongs to another."""
    if objects.is_object(fasta):
        return []
    stem = fasta.removesuffix(".gz")
    for path in (Path(stem).with_suffix(".dict"), Path(f"{fasta}.dict"), Path(f"{stem}.dict")):
        if not path.is_file():
            continue
        named = {}
        for line in path.read_text(errors="replace").splitlines():
            fields = dict(part.partition(":")[::2] for part in line.split("\t")[1:])
            if line.startswith("@SQ") and fields.get("LN", "").isdigit():
                named[fields.get("SN", "")] = int(fields["LN"])
        if list(named.items()) != list(contigs.items()):
            text = f"does not match {Path(fasta).name}: {_difference(named, contigs)}."
            hint = "Remove it, or make it anew: samtools dict."
            return [Problem(path.name, text, hint)]
    return []


def _difference(named: dict[str, int], contigs: dict[str, int]) -> str:
    """Say how two lists of contigs differ."""
    for name, length in contigs.items():
        if name not in named:
            return f"it lacks {name}"
        if named[name] != length:
            return f"{name} has {named[name]:,} bases there and {length:,} in the FASTA"
    extra = [name for name in named if name not in contigs]
    return f"{extra[0]} is not in the FASTA" if extra else "the order is another"
