"""The stage ``align``: one sample from its FASTQ files to a sorted, indexed alignment.

What it writes is told in ``layout.py``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from . import cache, checksums, layout, picard, pipe, programs, stream
from . import recalibrate as recalibration


class Reference(NamedTuple):
    """The reference on this node.

    Attributes
    ----------
    fasta, prefix : Path
        FASTA, and what the index's files begin with.
    contigs : list of (str, int)
        Names and lengths.
    length, longest : int
        Bases in all, and of the longest contig.
    """

    fasta: Path
    prefix: Path
    contigs: list[tuple[str, int]]
    length: int
    longest: int


def main(task: Any) -> None:
    """Align one sample."""
    began = time.monotonic()
    sample, settings = task.params["sample"], task.settings
    tools = programs.Tools(os.environ, task.tmp, task.tmp / "tools.log")
    reference = get_reference(task)
    name, file_format = sample["name"], settings["format"]
    target = task.out / layout.alignment_name(name, file_format)
    flow = stream.Stream(task, tools, reference)
    unchanged: list[str] = []
    if settings["known_sites"]:
        marked = task.tmp / "marked.bam"
        flow.run(marked, "fast")
        check_written(task, tools, marked, reference)
        unchanged = recalibrate(task, tools, reference, marked, target)
    else:
        flow.run(target, file_format)
    reads = check_reads(task, tools, flow, target, reference)
    if settings["picard_metrics"]:
        memory = task.memory // 2
        picard.collect(tools, target, reference.fasta, task.out, task.tmp, paired=flow.paired,
                       memory=memory)  # fmt: skip
    content = {
        "sample": name,
        "key": task.params["key"],
        "aligner": settings["aligner"],
        "library": settings["library"],
        "format": file_format,
        "alignment": target.name,
        "index": layout.index_name(target.name, reference.longest),
        "lanes": [
            {**given, **lane.counts()}
            for given, lane in zip(sample["lanes"], flow.lanes)  # noqa: B905 -- Python 3.9
        ],
        "reads": reads,
        "options": {
            **{name: settings[name] for name in ("adapters", "minimum_length", "max_n", "quality")},
            "mark_duplicates": settings["mark_duplicates"],
            "optical_distance": task.params["optical"],
        },
        "recalibrated": bool(settings["known_sites"]),
        "not_recalibrated": unchanged,
        "seconds": round(time.monotonic() - began, 3),
    }
    (task.out / layout.SAMPLE).write_text(json.dumps(content, indent=1) + "\n")
    tools.write(task.out / layout.COMMANDS)
    checksums.write_checksums(task.out)
    task.facts(reads=reads["input"])


def get_reference(task: Any) -> Reference:
    """Find the reference on this node; bring it here, once, where it lies elsewhere.

    Raises
    ------
    Failed
        It is not to be had.
    """
    place = layout.REFERENCE_STAGE, layout.REFERENCE_KEY
    about = json.loads(task.results.joinpath(*place, "reference.json").read_text())
    folder = Path(about["cache"]) if about["cache"] else cache.node_folder(task.tmp.parent)
    store = cache.Cache(folder, about["remote"], task.say)
    for part in (cache.FASTA, about["part"]):
        if not store.get(about["digest"], part):
            raise pipe.Failed(
                f"{part} of the reference is not in {store.place(about['digest'])} on "
                f"{os.uname().nodename}. Let the cache of labkit.Reference lie on a disk that all "
                "nodes share, or in S3; if it was removed, labkit.Reference(...).index() makes it.",
                "INPUT",
            )
    fasta = store.fasta(about["digest"])
    prefix = store.prefix(about["digest"], about["part"])
    if (task.files / layout.ALT).is_file():
        prefix = with_alt(prefix, task.files / layout.ALT, task.tmp / "index")
    return Reference(fasta, prefix, about["contigs"], about["length"], about["longest"])


def with_alt(prefix: Path, alt: Path, folder: Path) -> Path:
    """Put links to an index and a list of ALT contigs into a folder; return its prefix there.

    The index is the same with and without them: aligners look for the list beside it.
    """
    folder.mkdir()
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        (folder / path.name).symlink_to(path)
    (folder / f"{prefix.name}.alt").symlink_to(alt)
    return folder / prefix.name


def recalibrate(
    task: Any, tools: Any, reference: Reference, marked: Path, target: Path
) -> list[str]:
    """Recalibrate base qualities from a BAM in scratch into the final alignment.

    Returns
    -------
    list of str
        Read groups that keep their qualities: they have no base that could be counted.
    """
    metrics = task.out / layout.RECALIBRATION
    metrics.mkdir(parents=True)
    unchanged: list[str] = recalibration.run(
        tools,
        marked,
        target,
        reference.fasta,
        [Path(path) for path in task.settings["known_sites"]],
        metrics,
        cpu=task.cpu,
        memory=task.memory,
        tmp=task.tmp,
        file_format=task.settings["format"],
    )
    marked.unlink()
    return unchanged


def check_reads(
    task: Any, tools: Any, flow: Any, target: Path, reference: Reference
) -> dict[str, Any]:
    """Count the reads at both ends and all along; return the counts.

    Raises
    ------
    Failed
        Reads were lost, with numbers.
    """
    counts = [lane.counts() for lane in flow.lanes]
    aligned = sum(count["aligned"] for count in counts)
    flags = json.loads((task.out / layout.FLAGSTAT).read_text())
    groups = [flags[name] for name in ("QC-passed reads", "QC-failed reads")]
    primary = sum(group["primary"] for group in groups)
    records = sum(group["total"] for group in groups)
    copied = sum(lane.records for lane in flow.lanes)
    final = check_written(task, tools, target, reference)
    for one, before, other, after in (
        ("reads went into the aligner", aligned, "came out of the stream", primary),
        ("records came from the aligner", copied, "came out of the stream", records),
        ("records came out of the stream", records, f"are in {target.name}", final),
    ):
        if before != after:
            text = f"{before:,} {one}, {after:,} {other}: {before - after:,} are missing"
            raise pipe.Failed(f"reads were lost: {text}", "CHECK")
    dropped: dict[str, int] = {}
    for count in counts:
        for reason, number in count["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + number
    return {
        "input": sum(count["reads"] for count in counts),
        "trimmed": sum(count["trimmed"] for count in counts),
        "dropped": dropped,
        "aligned": aligned,
        "primary": primary,
        "records": records,
        "final": final,
    }


def check_written(task: Any, tools: Any, path: Path, reference: Reference) -> int:
    """Return how many records a file holds, as its index or its own heads say.

    Of a BAM the index also tells them by contig: they are kept among the metrics.

    Raises
    ------
    Failed
        It is not whole.
    """
    tools.run("quickcheck", ["samtools", "quickcheck", "-v", str(path)])
    if path.suffix == ".bam":
        argv, counted = ["samtools", "idxstats", str(path)], task.out / layout.IDXSTATS
    else:
        only_flags = ["--input-fmt-option", "required_fields=0x2"]
        argv = ["samtools", "view", "-c", "-T", str(reference.fasta), *only_flags, str(path)]
        counted = task.tmp / f"{path.name}.count"
    tools.run("count", argv, stdout=counted)
    lines = [line.split("\t") for line in counted.read_text().splitlines()]
    if len(lines) == 1 and len(lines[0]) == 1:
        return int(lines[0][0])
    return sum(int(mapped) + int(unmapped) for _, _, mapped, unmapped in lines)
