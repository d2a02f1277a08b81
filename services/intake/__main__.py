"""Take requests from a queue, or plates from a folder: ``python -m services.intake [PLATES]``."""

from __future__ import annotations

import logging
import signal
import sys
import threading

from labkit.base.problems import RefusedError
from services.intake.plates import Plates
from services.intake.queue import serve
from services.intake.settings import Settings, SettingsError

_EVERY = 30.0  # seconds between two looks into a folder


def main(words: list[str]) -> int:
    """Serve until SIGTERM.

    Parameters
    ----------
    words : list of str
        Nothing: the queue. Else a folder or ``s3://`` prefix with plates, and a job file.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = Settings.of_environment()
        if not words:
            serve(settings, stop)
        elif len(words) == 2:
            plates = Plates(words[0], words[1], settings.folder)
            plates.watch(stop, _EVERY)
        else:
            print(__doc__, file=sys.stderr)
            return 64
    except (SettingsError, RefusedError) as error:
        print(error, file=sys.stderr)
        return 78  # EX_CONFIG: it would fail again
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
