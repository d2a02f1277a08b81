"""Alignment jobs: from FASTQ files to sorted, measured BAM or CRAM, one streamed task a sample."""

from labkit.workflows.alignment.reference import Reference
from labkit.workflows.alignment.workflow import Alignment

__all__ = ["Alignment", "Reference"]
