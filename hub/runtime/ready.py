"""Whether the portal really answers, by way of its proxy; and waiting until it does."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable

from hub.labfile.schema import Settings
from hub.runtime.supervise import programs
from hub.supervisor.client import Supervisor
from hub.supervisor.programs import is_app
from labkit.base.problems import LabkitError
from labkit.base.units import format_duration

# How often a program may end at once, until `up` gives up: the culler may be before the hub.
_FAILURES = {"culler": 3}


class NotReadyError(LabkitError):
    """A program of the portal does not come up.

    Attributes
    ----------
    program : str
        Which; its log says why.
    """

    def __init__(self, program: str, text: str) -> None:
        self.program = program
        super().__init__(text)


def answers(settings: Settings, timeout: float = 2) -> bool:
    """Whether the hub answers through the proxy, under the portal's own name."""
    host, port = settings.bind
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    connection: http.client.HTTPConnection
    if settings.tls:
        # The certificate is the public name's; here it is asked by the machine's address.
        connection = http.client.HTTPSConnection(
            host,
            port,
            timeout=timeout,
            context=ssl._create_unverified_context(),  # noqa: S323
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/hub/health", headers={"Host": settings.parts.netloc})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait(
    settings: Settings, supervisor: Supervisor, say: Callable[[str], None], timeout: float = 120
) -> None:
    """Wait until every program runs and the hub answers.

    Raises
    ------
    NotReadyError
        One ends again and again, or time is up.
    """
    end = time.monotonic() + timeout
    ends: dict[str, set[float]] = {}
    before: dict[str, float] = {}  # ends of earlier runs
    while True:
        known = supervisor.info()
        for name, program in known.items():
            if is_app(name):
                continue  # it is shown as down to who opens it
            # One that took some seconds to fail was taken for running, and is started anew at once.
            ended = name not in _FAILURES and program.stopped != before.setdefault(
                name, program.stopped
            )
            if ended or program.state in ("BACKOFF", "FATAL", "EXITED"):
                ends.setdefault(name, set()).add(program.stopped)
                if program.state == "FATAL" or len(ends[name]) >= _FAILURES.get(name, 1):
                    raise NotReadyError(name, f"{name} ends as soon as it is started")
        slow = [n for n in programs(settings) if n not in known or not known[n].running]
        if not [name for name in slow if name != "culler"] and answers(settings):
            return
        say(f"waiting for {', '.join(slow)}" if slow else "waiting for the hub to answer")
        if time.monotonic() > end:
            name = slow[0] if slow else "hub"
            raise NotReadyError(name, f"{name} is not ready after {format_duration(timeout)}")
        time.sleep(0.1)
