"""Run a member's app as the portal does: ``python -m services.member_apps shiny|dash``."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from labkit.viewers.paths import EnvironmentMissingError, program
from services.appkit import secrets
from services.appkit.launch import not_started
from services.member_apps import SYSTEM_PATH, answers, front

HERE = Path(__file__).resolve().parent
# What the member's code is told; the app's secret is not among it.
PASSED = (
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LABHUB_APP_NAME",
    "LABHUB_APP_PREFIX",
    "LABHUB_APP_URL",
    "LABHUB_APP_FOLDER",
    "LABHUB_APP_DATA",
    "LABHUB_LAB_NAME",
    "LABHUB_HOME_URL",
    "LABHUB_MEMORY_BYTES",
)
_TIMEOUT = 8.0  # seconds for it to end
_NOT_DUMPABLE = 4  # PR_SET_DUMPABLE of prctl(2)


def command(kind: str, place: str, folder: str) -> tuple[list[str], str]:
    """Return what runs the member's code, and the PATH that it has.

    Raises
    ------
    EnvironmentMissingError
        What it needs is not installed.
    """
    if kind == "dash":
        python = program("dash", "python")
        return [str(python), str(HERE / "run_dash.py"), place, folder], (
            f"{python.parent}:{SYSTEM_PATH}"
        )
    script = str(HERE / "run_shiny.R")
    return ["Rscript", "--vanilla", script, place, folder], SYSTEM_PATH


def member_variables(environ: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the variables of the member's code."""
    variables = {name: environ[name] for name in PASSED if name in environ}
    return {
        **variables,
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Dash takes it as its own: an app needs no word about where it is.
        "DASH_URL_BASE_PATHNAME": environ["LABHUB_APP_PREFIX"],
    }


def hide_from_own_account() -> None:
    """Let no process of the same account look into this one, where the secret is."""
    if ctypes.CDLL(None, use_errno=True).prctl(_NOT_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")


async def serve(kind: str, environ: Mapping[str, str], secret: str) -> int:
    """Start the member's code, serve until it ends or a signal comes; returns the exit status."""
    ended = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    folder = environ["LABHUB_APP_FOLDER"]
    with tempfile.TemporaryDirectory(prefix="webapp-") as scratch:
        inner = f"{scratch}/app.sock"
        words, path = command(kind, inner, folder)
        variables = member_variables(environ, path)
        process = await asyncio.create_subprocess_exec(
            *words, env=variables, cwd=folder, stdin=asyncio.subprocess.DEVNULL
        )
        gone = asyncio.ensure_future(process.wait())
        stop = asyncio.ensure_future(ended.wait())
        try:
            while not answers(inner) and not gone.done() and not stop.done():
                await asyncio.sleep(0.05)
            if gone.done() or stop.done():
                return 0 if stop.done() else await gone
            place = environ["LABHUB_APP_SOCKET"]
            server, upstreams = front.listen(place, secret, inner, shiny=kind == "shiny")
            print("labhub: it is ready", flush=True)
            await asyncio.wait([gone, stop], return_when=asyncio.FIRST_COMPLETED)
            server.stop()
            await upstreams.close()
            return 0 if stop.done() else await gone
        finally:
            await _end(process, gone)
            stop.cancel()


async def _end(process: asyncio.subprocess.Process, gone: asyncio.Future[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if gone.done():
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        await asyncio.wait([gone], timeout=_TIMEOUT)


def main() -> None:
    """Be the front of one app."""
    logging.basicConfig(level=logging.WARNING, format="labhub: %(message)s")
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    if len(sys.argv) != 2 or sys.argv[1] not in ("shiny", "dash"):
        sys.exit("usage: python -m services.member_apps shiny|dash")
    hide_from_own_account()
    secret = os.environ.pop(secrets.VARIABLE, "")
    try:
        status = asyncio.run(serve(sys.argv[1], dict(os.environ), secret))
    except KeyError as error:
        sys.exit(not_started(error))
    except (EnvironmentMissingError, FileNotFoundError, ValueError) as error:
        sys.exit(f"labhub: {error}")
    if status < 0:
        print(f"labhub: it was ended by signal {-status}", flush=True)
    sys.exit(128 - status if status < 0 else status)


if __name__ == "__main__":
    main()
