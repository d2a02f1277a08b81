"""Whether AWS has the queue and the bucket that a submit names."""

from __future__ import annotations

from labkit.base.problems import Problem
from labkit.jobs.backends.base import BackendError
from labkit.jobs.backends.batch import calls
from labkit.jobs.backends.batch.options import Options
from labkit.storage.errors import StorageError
from labkit.storage.objects import check_bucket


def reach_problems(chosen: Options) -> list[Problem]:
    """Return what AWS says against a queue and a bucket; empty where both can be used.

    Parameters
    ----------
    chosen : Options
        The options of a submission.
    """
    try:
        check_bucket(chosen.folder)
        queues = calls.call("describe_job_queues", jobQueues=[chosen.queue])["jobQueues"]
    except StorageError as error:
        return [Problem("batch_folder", str(error))]
    except BackendError as error:
        return [Problem("batch", str(error))]
    if not queues:
        return [Problem("batch_queue", f"there is no job queue {chosen.queue!r} in this region.")]
    if queues[0]["state"] != "ENABLED":
        return [Problem("batch_queue", f"the job queue {chosen.queue!r} is switched off.")]
    return []
