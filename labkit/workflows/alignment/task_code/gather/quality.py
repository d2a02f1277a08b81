"""Results that came out well, and are worth little: say so of each sample."""

from __future__ import annotations

from typing import Any

_MANY_DROPPED = 0.5
_FEW_MAPPED = 0.1
_FEW_PROPER = 0.1


def warnings(about: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """Return what makes a sample's result doubtful, each with its numbers and what to look at.

    Parameters
    ----------
    about : dict
        ``sample.json``.
    row : dict
        The sample's row of the table ``alignment``.
    """
    return [*_dropped(about["reads"]), *_mapped(row), *_unchanged(about)]


def _dropped(reads: dict[str, Any]) -> list[str]:
    lost = sum(reads["dropped"].values())
    if not reads["input"] or lost / reads["input"] < _MANY_DROPPED:
        return []
    why = ", ".join(
        f"{name.replace('_', ' ')}: {number:,}" for name, number in reads["dropped"].items()
    )
    which = "all" if lost == reads["input"] else f"{lost:,} of"
    return [
        f"{which} {reads['input']:,} reads were dropped ({why}); look at minimum_length, max_n, "
        "quality and adapters"
    ]


def _mapped(row: dict[str, Any]) -> list[str]:
    reads, mapped = row["reads"], row["mapped"]
    if not reads:
        return []
    if mapped / reads < _FEW_MAPPED:
        return [
            f"{mapped:,} of {reads:,} reads are mapped; are they of this reference's species, and "
            "of the kind that the aligner and preset are for?"
        ]
    if row["paired"] and row["properly_paired"] / row["paired"] < _FEW_PROPER:
        return [
            f"{row['properly_paired']:,} of {row['paired']:,} paired reads are properly paired; "
            "are the two files mates of each other?"
        ]
    return []


def _unchanged(about: dict[str, Any]) -> list[str]:
    groups = about.get("not_recalibrated")
    if not groups:
        return []
    return [f"no usable read in {', '.join(groups)}: its base qualities are as they were"]
