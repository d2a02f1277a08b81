"""The tables that an alignment job leaves, as Parquet: ``job.results(<name>)``."""

from __future__ import annotations

import pyarrow as pa

from .. import regions

_TEXT, _WHOLE, _REAL, _YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([("sample", _TEXT), *columns.items()])


_EVERY = {
    # What is missing and why: samples whose tasks failed, and reports that cannot be read; and
    # with the reason WARNING what is there and doubtful.
    "problems": _schema(
        reason=_TEXT,
        text=_TEXT,
        tables=_TEXT,  # that lack the sample; empty: all of them
    ),
    "commands": _schema(step=_TEXT, command=_TEXT, seconds=_REAL, cpu_seconds=_REAL),
    "versions": _schema(tool=_TEXT, version=_TEXT),
}

_COVERED = {f"covered_{least}": _REAL for least in regions.DEPTHS}

ALIGNMENT: dict[str, pa.Schema] = {
    # One row per sample. Fractions are of 1; lengths, insert sizes and depths in bases.
    "alignment": _schema(
        lanes=_WHOLE,
        reads_sequenced=_WHOLE,  # in the FASTQ files, both mates
        reads=_WHOLE,  # after trimming: what was aligned
        adapter_fraction=_REAL,
        mapped=_WHOLE,
        mapped_fraction=_REAL,
        paired=_WHOLE,
        properly_paired=_WHOLE,
        properly_paired_fraction=_REAL,
        singletons=_WHOLE,
        secondary=_WHOLE,
        supplementary=_WHOLE,
        duplicates=_WHOLE,
        duplicate_fraction=_REAL,
        optical_duplicates=_WHOLE,
        library_size=_REAL,
        insert_size_median=_REAL,
        insert_size_mean=_REAL,
        insert_size_sd=_REAL,
        mean_depth=_REAL,
        covered_fraction=_REAL,
        error_rate=_REAL,
        mismatches=_WHOLE,
        bases=_WHOLE,
        bases_mapped=_WHOLE,
        mean_length=_REAL,
        longest=_WHOLE,
        mean_quality=_REAL,
        aligner=_TEXT,
        recalibrated=_YES,
        seconds=_REAL,
    ),
    # One row per sample: where its alignment is. Paths are relative to the folder of results.
    "bams": _schema(
        path=_TEXT,
        index=_TEXT,
        format=_TEXT,
        bytes=_WHOLE,
        sha256=_TEXT,
        reads=_WHOLE,
        duplicates_marked=_YES,
        recalibrated=_YES,
        recalibration_table=_TEXT,
    ),
    "lanes": _schema(
        lane=_TEXT,
        reads=_WHOLE,
        with_adapter=_WHOLE,
        adapter_fraction=_REAL,
        kept=_WHOLE,
        too_short=_WHOLE,
        too_many_n=_WHOLE,
        bases=_WHOLE,
        bases_kept=_WHOLE,
        bases_low_quality=_WHOLE,
        fastq_1=_TEXT,
        fastq_2=_TEXT,
    ),
    "insert_sizes": _schema(
        insert_size=_WHOLE, pairs=_WHOLE, inward=_WHOLE, outward=_WHOLE, other=_WHOLE
    ),
    "contigs": _schema(
        contig=_TEXT,
        length=_WHOLE,
        mapped=_WHOLE,
        counted=_WHOLE,  # without duplicates and secondary alignments
        covered_bases=_WHOLE,
        covered_fraction=_REAL,
        mean_depth=_REAL,
        mean_base_quality=_REAL,
        mean_mapping_quality=_REAL,
    ),
    # Depth along the reference: windows, from 0, half open.
    "coverage": _schema(
        contig=_TEXT, start=_WHOLE, end=_WHOLE, mean_depth=_REAL, covered_bases=_WHOLE
    ),
    # Where targets or baits were given: one row for each of the two, of all their bases; and one
    # row per region. covered_10 is the share of bases with at least 10 reads.
    "on_target": _schema(
        intervals=_TEXT,  # "targets" or "baits"
        regions=_WHOLE,
        bases=_WHOLE,  # each once, where regions overlap
        reads=_WHOLE,  # mapped, primary, no duplicates
        reads_on=_WHOLE,  # of these, with a base in a region
        on_fraction=_REAL,
        mean_depth=_REAL,
        median_depth=_REAL,
        **_COVERED,
    ),
    "regions": _schema(
        intervals=_TEXT,
        contig=_TEXT,
        start=_WHOLE,
        end=_WHOLE,
        name=_TEXT,
        mean_depth=_REAL,
        lowest_depth=_WHOLE,
        **_COVERED,
    ),
    "depth_histogram": _schema(depth=_WHOLE, bases=_WHOLE),
    "cycles": _schema(
        cycle=_WHOLE, bases=_WHOLE, mean_quality=_REAL, mismatches=_WHOLE, error_rate=_REAL
    ),
    # Where base qualities were recalibrated: Phred scaled.
    "recalibration": _schema(
        read_group=_TEXT,
        reported=_WHOLE,
        empirical=_REAL,
        recalibrated=_REAL,
        bases=_WHOLE,
        errors=_REAL,
    ),
    **_EVERY,
}

CALLS: dict[str, pa.Schema] = {
    # One row per alternative allele; positions from 1, as in VCF.
    "variants": _schema(
        contig=_TEXT,
        position=_WHOLE,
        ref=_TEXT,
        alt=_TEXT,
        type=_TEXT,
        quality=_REAL,
        filter=_TEXT,
        genotype=_TEXT,
        depth=_WHOLE,
        ref_depth=_WHOLE,
        alt_depth=_WHOLE,
    ),
    "calls": _schema(
        variants=_WHOLE,  # with the weak ones; all others are of those that passed
        passed=_WHOLE,
        snps=_WHOLE,
        indels=_WHOLE,
        other=_WHOLE,
        transitions=_WHOLE,
        transversions=_WHOLE,
        ts_tv=_REAL,
        heterozygous=_WHOLE,
        homozygous=_WHOLE,
        mean_quality=_REAL,
        mean_depth=_REAL,
    ),
    # Where each sample's VCF is, relative to the folder of results.
    "vcfs": _schema(path=_TEXT, index=_TEXT, bytes=_WHOLE, sha256=_TEXT, alignment=_TEXT),
    **_EVERY,
}
