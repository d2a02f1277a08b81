"""Aligners, adapters and the other options: names, defaults, and what may be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labkit.base.problems import Problem, unknown_name

ALIGNERS = ("bwa-mem2", "bwa", "minimap2")
#: minimap2's presets that are offered, with the platform they are for.
PRESETS = {"map-ont": "ONT", "map-hifi": "PACBIO", "map-pb": "PACBIO", "sr": "ILLUMINA"}
LONG_PRESETS = ("map-ont", "map-hifi", "map-pb")
FORMATS = ("bam", "cram")
#: Of a filter: as usual where adapters are cut, else none.
AUTO = "auto"
#: Adapters by name: of the first and of the second mate (cutadapt's guide; Illumina's document
#: 1000000002694; MGI's of DNBSEQ).
ADAPTERS: Mapping[str, tuple[str, str]] = {
    "truseq": ("AGATCGGAAGAGC", "AGATCGGAAGAGC"),
    "truseq-full": ("AGATCGGAAGAGCACACGTCTGAACTCCAGTCA", "AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT"),
    "nextera": ("CTGTCTCTTATACACATCT", "CTGTCTCTTATACACATCT"),
    "small-rna": ("TGGAATTCTCGGGTGCCAAGG", "GATCGTCGGACTGTAGAACTCTGAAC"),
    "dnbseq": (
        "AAGTCGGAGGCCAAGCGGTCTTAGGAAGACAA",
        "AAGTCGGATCGTAGCCATGTCGTTCTGTGAGCCAAGGAGTTG",
    ),
}
# Only letters of bases: cutadapt would read more of an adapter, even files.
_SEQUENCE = re.compile(r"[ACGTURYKMSWBDHVN]{5,200}")
#: Pixels within which two duplicates are one cluster seen twice: on patterned flow cells and on
#: others (picard, MarkDuplicates, OPTICAL_DUPLICATE_PIXEL_DISTANCE).
PATTERNED, UNPATTERNED = 2500, 100
# Instruments with unpatterned flow cells, by the start of their reads' names.
_UNPATTERNED = re.compile(rb"HWI-.*|HWUSI.*|(?:SN|C|D|M|MN|NB|NS)\d+")
_ILLUMINA = re.compile(rb"([A-Za-z0-9_-]+):[^:]*:[^:]*:\d+:\d+:\d+:\d+")
_LONGEST = 10_000  # pixels


def read_adapters(value: Any) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Return adapters as pairs of sequences.

    Parameters
    ----------
    value : str, (str, str), list of them, None or False
        A name of :data:`ADAPTERS`, a sequence for both mates, or one for each; nothing is cut
        for None and False.
    """
    if value is None or value is False:
        return [], []
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, str) for v in value):
        value = [value]
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, Iterable):
        return [], [Problem("adapters", f"cannot be {value!r}.", _ADAPTER_HELP)]
    pairs, problems = [], []
    for item in listed:
        pair = (item, item) if isinstance(item, str) else item
        if isinstance(item, str) and item in ADAPTERS:
            pair = ADAPTERS[item]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            problems.append(Problem("adapters", f"cannot be {item!r}.", _ADAPTER_HELP))
            continue
        for text in pair:
            if not isinstance(text, str) or not _SEQUENCE.fullmatch(text):
                known = f"Names: {', '.join(sorted(ADAPTERS))}."
                text = f"{text!r} is neither a name nor a sequence of 5 to 200 bases."
                problems.append(Problem("adapters", text, known))
                break
        else:
            pairs.append((str(pair[0]), str(pair[1])))
    return pairs, problems


_ADAPTER_HELP = "Give a name, a sequence, a pair of sequences, or a list of them."


def filters(options: Mapping[str, Any], cuts: bool) -> dict[str, Any]:
    """Return ``minimum_length``, ``max_n`` and ``quality`` as they are meant; None: no filter.

    Parameters
    ----------
    cuts : bool
        Whether adapters are cut: then what is left of a read may be too short to be of use.
    """
    usual = {"minimum_length": 20, "max_n": 0.1} if cuts else {}
    chosen = {
        name: usual.get(name) if options[name] == AUTO else options[name]
        for name in ("minimum_length", "max_n")
    }
    return chosen | {"quality": options["quality"]}


def check_options(options: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the options of an alignment, whatever its reads are."""
    problems = []
    for name, valid in (("aligner", ALIGNERS), ("preset", PRESETS), ("format", FORMATS)):
        value = options[name]
        if value is not None and value not in valid:
            problems.append(unknown_name(name, str(value), valid))
    if options["preset"] and options["aligner"] not in (None, "minimap2"):
        text = f"belongs to minimap2, not to {options['aligner']}."
        problems.append(Problem("preset", text))
    for name, least, most in (
        ("minimum_length", 1, 1000),
        ("quality", 0, 60),
        ("optical_distance", 0, _LONGEST),
    ):
        value = None if name == "minimum_length" and options[name] == AUTO else options[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= most):
            text = f"must be a whole number from {least} to {most}, not {value!r}."
            problems.append(Problem(name, text))
    share = options["max_n"]
    if share not in (None, AUTO) and not (isinstance(share, (int, float)) and 0 <= share < 1):
        text = f"must be a share of the read from 0 to below 1, not {share!r}."
        problems.append(Problem("max_n", text))
    if options["umi"] not in (None, "name"):
        hint = "UMIs in a file of their own are the sheet's column fastq_umi."
        problems.append(Problem("umi", f"must be 'name' or None, not {options['umi']!r}.", hint))
    for name in ("mark_duplicates", "depth", "uq", "picard_metrics"):
        if not isinstance(options[name], (bool, type(None))):
            problems.append(Problem(name, f"must be True or False, not {options[name]!r}."))
    return problems


def optical_distance(read: bytes, platform: str) -> int:
    """Return the optical distance of a sample's reads, in pixels; 0: there is none.

    Parameters
    ----------
    read : bytes
        Name of a read: Illumina's begins with the instrument.
    platform : str
        @RG PL.
    """
    known = _ILLUMINA.match(read)
    if platform != "ILLUMINA" or not known:
        return 0
    return UNPATTERNED if _UNPATTERNED.fullmatch(known[1]) else PATTERNED
