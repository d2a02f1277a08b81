"""How much memory and disk a task needs: the plan asks for it, the task shares it out."""

from __future__ import annotations

# Bytes of an index in memory per base of the reference, with room for what is made of it: the
# human genome takes 5.3 GB with bwa, 17 GB with bwa-mem2 and up to 8 GB with minimap2.
_INDEX = {"bwa": 1.8, "bwa-mem2": 5.7, "minimap2": 2.7}
# Bytes of an index while it is made, per base: bwa-mem2's makers say 28 times the genome.
_BUILDING = {"bwa": 2.5, "bwa-mem2": 28.0, "minimap2": 5.0}
# Bytes of an aligner beside its index, for itself and for each thread.
_WORKING = {"bwa": (400, 100), "bwa-mem2": (500, 450), "minimap2": (400, 300)}
_MB = 1024**2
_OTHERS = 700 * _MB  # cutadapt, the chain behind sort, and this program
_LEAST_SORT = 256 * _MB
_SORT = 2048 * _MB  # more is only faster for large samples
_LEAST = 2048 * _MB
#: Bytes of temporary files and of results per byte of compressed reads.
SCRATCH_SHARE = 1.6
RECALIBRATION_SHARE = 2.6  # what was marked, and the same again with new qualities
RESULT_SHARE = 1.3
#: The same reads uncompressed are so many times as large.
PLAIN = 4.0


def index_memory(aligner: str, length: int) -> int:
    """Return the bytes that an index takes in memory."""
    return int(_INDEX[aligner] * length)


def building_memory(aligner: str, length: int) -> int:
    """Return the bytes that making an index takes."""
    return max(_LEAST, int(_BUILDING[aligner] * length) + 512 * _MB)


def aligner_memory(aligner: str, length: int, cpu: float) -> int:
    """Return the bytes of an aligner with its index."""
    base, each = _WORKING[aligner]
    return index_memory(aligner, length) + int((base + each * cpu) * _MB)


def task_memory(aligner: str, length: int, cpu: float, read_bytes: float) -> int:
    """Return the bytes that a task should ask for.

    Parameters
    ----------
    length : int
        Bases of the reference.
    read_bytes : float
        Of the largest sample's compressed reads: a small one sorts in little memory.
    """
    sort = min(_SORT, max(_LEAST_SORT, int(PLAIN * read_bytes)))
    needed = aligner_memory(aligner, length, cpu) + _OTHERS + sort
    return max(_LEAST, -(-needed // (256 * _MB)) * 256 * _MB)


def sort_memory(memory: int, aligner: str, length: int, cpu: float) -> int:
    """Return the bytes that a task of ``memory`` bytes leaves for sorting."""
    left = memory - aligner_memory(aligner, length, cpu) - _OTHERS
    return max(_LEAST_SORT, left)


def scratch(read_bytes: float, recalibrates: bool) -> int:
    """Return the bytes of temporary files for so many bytes of compressed reads."""
    share = RECALIBRATION_SHARE if recalibrates else SCRATCH_SHARE
    return int(share * read_bytes) + 64 * _MB


def results(read_bytes: float) -> int:
    """Return the bytes of results for so many bytes of compressed reads."""
    return int(RESULT_SHARE * read_bytes) + 16 * _MB
