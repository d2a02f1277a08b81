"""The states of SLURM's jobs (its manual of squeue, "JOB STATE CODES")."""

from __future__ import annotations

#: It has no node yet.
WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
#: It has nodes that are not ready: a cloud's are booting.
STARTING = frozenset({"CONFIGURING"})
RUNNING = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"})
#: Its processes end, or have ended; it may be put back into the queue.
COMPLETING = "COMPLETING"
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
ALL = WAITING | STARTING | RUNNING | ENDED | {COMPLETING}
