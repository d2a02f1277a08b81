"""Where an alignment job keeps what: the one place that the tasks and the gather share.

``results/align/<task key>/`` of each sample::

    <sample>.bam or <sample>.cram        sorted, duplicates marked, read groups complete
    <sample>.bam.bai, .bam.csi, .cram.crai
    sample.json                          what came out: files, read counts, what was asked for
    commands.json                        every command line and the version of every tool
    checksums.sha256                     of all files here, as sha256sum writes them
    metrics/<lane>.cutadapt.json         cutadapt's report of a lane, where adapters were cut
    metrics/<lane>.cutadapt.txt          the same as text
    metrics/<lane>.<aligner>.log         what the aligner said of a lane
    metrics/flagstat.json                samtools flagstat -O json
    metrics/stats.txt                    samtools stats: insert sizes, error rates, coverage
    metrics/idxstats.tsv                 samtools idxstats
    metrics/coverage.tsv                 samtools coverage, one line per contig
    metrics/windows.tsv                  mean depth of each window (see WINDOW_COLUMNS)
    metrics/depth.tsv.gz                 depth of each base, of small genomes
    metrics/markdup.txt                  samtools markdup -f, where duplicates were marked
    metrics/recalibration/               what base recalibration reports, where it ran
    metrics/picard/<sample>.*            metrics in picard's formats, where asked for
    metrics/targets.tsv, targets.json    coverage of each target, and of all (see ``regions.py``)
    metrics/targets.reads.txt            reads that lie on a target; the same of baits
    metrics/usable.txt                   reads that could: mapped, primary, no duplicates

``results/reference/<key>/reference.json`` is what the stage before has made: see ``index.py``.
"""

from __future__ import annotations

from pathlib import Path

SAMPLE = "sample.json"
COMMANDS = "commands.json"
CHECKSUMS = "checksums.sha256"
METRICS = "metrics"
FLAGSTAT = "metrics/flagstat.json"
STATS = "metrics/stats.txt"
IDXSTATS = "metrics/idxstats.tsv"
COVERAGE = "metrics/coverage.tsv"
WINDOWS = "metrics/windows.tsv"
DEPTH = "metrics/depth.tsv.gz"
MARKDUP = "metrics/markdup.txt"
RECALIBRATION = "metrics/recalibration"
USABLE = "metrics/usable.txt"

#: Columns of ``windows.tsv`` (with a head): where, from 0, half open; the mean depth of all its
#: bases; the bases with any depth. Windows without any reads are left out.
WINDOW_COLUMNS = ("contig", "start", "end", "mean_depth", "covered")

#: Columns of ``depth.tsv.gz`` (no head): contig, position from 1, depth; covered bases only.
DEPTH_COLUMNS = ("contig", "position", "depth")

#: Of the job's files: the reference's ALT contigs, where it has any.
ALT = "reference.alt"
#: Of the job's files: regions, by what they are.
REGIONS = {"targets": "targets.bed", "baits": "baits.bed"}

REFERENCE_STAGE = "reference"
REFERENCE_KEY = "reference"
ALIGN_STAGE = "align"


def lane_metrics(lane: str, tool: str, suffix: str) -> str:
    """Return the file of a lane's report, relative to the sample's folder."""
    return f"{METRICS}/{lane}.{tool}.{suffix}"


def region_metrics(kind: str, suffix: str) -> str:
    """Return the file of what was measured on targets or baits, relative to the sample's folder."""
    return f"{METRICS}/{kind}.{suffix}"


def alignment_name(sample: str, file_format: str) -> str:
    """Return the name of a sample's alignment: ``<sample>.bam`` or ``<sample>.cram``."""
    return f"{sample}.{file_format}"


def index_name(alignment: str, longest: int) -> str:
    """Return the name of an alignment's index.

    Parameters
    ----------
    longest : int
        Bases of the longest contig: a .bai ends at 2**29.
    """
    if Path(alignment).suffix == ".cram":
        return f"{alignment}.crai"
    return f"{alignment}.bai" if longest < 2**29 else f"{alignment}.csi"
