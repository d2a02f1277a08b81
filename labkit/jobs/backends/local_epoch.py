"""Which scheduler a submission belongs to: the newest epoch's (fencing).

Several machines may share a home. When the scheduler of one seems dead, another machine's takes
over; the first may only have been frozen, and wakes up. So each take-over makes the next file
``submissions/<n>.scheduler.<epoch>.json``, which nobody can make twice, *before* it reads the run
folder; and whoever has claimed an attempt looks for a newer epoch *before* the worker starts. One
of the two sees the other. No lock is needed: some network disks have none.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.base import process_tree
from labkit.jobs.worker.folder import Folder, read_json, write_json

_NAME = re.compile(r"(\d{4})\.scheduler\.(\d+)\.json")


@dataclass(frozen=True)
class Epoch:
    """The time of one scheduler's hold of a submission.

    Attributes
    ----------
    folder : Folder
        The run folder.
    submission, number : int
        Numbers of the submission and of the epoch, from 1.
    """

    folder: Folder
    submission: int
    number: int

    @classmethod
    def begin(cls, folder: Folder, submission: int, queue: Path) -> Epoch:
        """Begin the next one; from then on all earlier ones are over.

        Parameters
        ----------
        folder : Folder
            The run folder.
        submission : int
            Number of the submission.
        queue : Path
            The local queue of the machine that has it now.

        Raises
        ------
        OSError
            The run folder cannot be written: nothing has changed.
        """
        while True:
            before = _numbers(folder, submission)
            number = max(before, default=0) + 1
            about = {
                "epoch": number,
                "host": os.uname().nodename,
                "place": process_tree.place(),
                "pid": os.getpid(),
                "queue": str(queue),
                "at": round(time.time(), 3),
            }
            path = folder.epoch(submission, number)
            if not write_json(path, about, exclusive=True, sync=True):
                continue
            epoch = cls(folder, submission, number)
            if epoch.is_newest():
                for old in before:  # the newest tells all
                    folder.epoch(submission, old).unlink(missing_ok=True)
                return epoch

    def is_newest(self) -> bool:
        """Return whether the submission is still in these hands.

        Raises
        ------
        OSError
            The run folder cannot be read: nobody knows.
        """
        return max(_numbers(self.folder, self.submission), default=0) <= self.number


def holder(folder: Folder, submission: int) -> dict[str, Any] | None:
    """Return ``host``, ``queue`` and more of the newest epoch; None where there was none yet."""
    for number in sorted(_numbers(folder, submission), reverse=True):
        about = read_json(folder.epoch(submission, number))
        if about is not None:
            return about
    return None


def _numbers(folder: Folder, submission: int) -> list[int]:
    # A listing opens the folder, and a network disk then asks its server: a look at one name may
    # be answered from what was known half a minute ago.
    names = os.listdir(folder.path / "submissions")  # noqa: PTH208 -- names are enough
    found = [match for match in map(_NAME.fullmatch, names) if match]
    return [int(match[2]) for match in found if int(match[1]) == submission]
