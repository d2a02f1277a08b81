"""When a failed attempt is worth another one; the scheduler and SLURM's tasks both ask."""

from __future__ import annotations

# Not the task's own fault, or mended by more memory.
TRANSIENT = frozenset({"OUT_OF_MEMORY", "PREEMPTED", "NODE_FAIL", "SPOT_RECLAIM", "LOST"})


def retry_memory(reason: str, memory: int, used: int, retries: int, most: int) -> int | None:
    """Return the memory (bytes) of the next attempt, None where there shall be none.

    Parameters
    ----------
    reason : str
        Why the last attempt failed.
    memory : int
        Bytes it had.
    used : int
        Attempts of this submission so far.
    retries : int
        Further attempts that are allowed.
    most : int
        Bytes that the backend can give.
    """
    if reason not in TRANSIENT or used > retries:
        return None
    if reason != "OUT_OF_MEMORY":
        return memory
    return min(2 * memory, most) if memory < most else None
