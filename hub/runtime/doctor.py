"""Look into a portal and its machine: what is well, what is not, and how to fix it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from packaging.version import Version

from hub import targets
from hub.environments import advisories, build, rstudio, toolchain
from hub.labfile.schema import Settings
from hub.portal.control import Control, ControlError
from hub.runtime import batch, preflight, ready, remote_backup
from hub.runtime.supervise import programs
from hub.sandbox import accounts_of, home_use, quotas
from hub.state import create
from hub.state.database import HubDatabase
from hub.state.paths import REPOSITORY, Paths
from hub.supervisor.client import Supervisor
from hub.targets import Finding
from labkit.base.problems import Problem, ProblemsError
from labkit.base.units import format_size

_DISK_FREE = 5 << 30
_DISK_PART = 0.05
_AHEAD = 120  # seconds
_HOMES_TIME = 20.0  # seconds for measuring homes
_HOMES_SHOWN = 5


def examine(settings: Settings, paths: Paths) -> list[Finding]:
    """Return what every look found; nothing is changed.

    Parameters
    ----------
    settings : Settings
        The lab file.
    paths : Paths
        Where the portal keeps its state.
    """
    looks: tuple[Callable[[Settings, Paths], Finding], ...] = (
        machine,
        versions,
        built,
        disk,
        homes,
        quota,
        permissions,
        clock,
        names,
        cookies,
        portal,
        database,
        remote_backup.finding,
        batch.finding,
        apps,
    )
    findings = [look(settings, paths) for look in looks]
    return [*findings, *targets.of(settings, paths).findings()]


def machine(settings: Settings, paths: Paths) -> Finding:
    """Look at all that `labhub check` does: ports, files, accounts, isolation."""
    problems = preflight.problems(settings, paths)
    memory = psutil.virtual_memory().total
    user = "root" if os.geteuid() == 0 else "no root"
    detail = f"{psutil.cpu_count()} cores, {format_size(memory)} memory, {user}"
    return Finding("machine and lab file", detail, tuple(problems))


def versions(settings: Settings, paths: Paths) -> Finding:
    """Look for versions with known holes, in every environment."""
    problems, shown = [], []
    for name in preflight.wanted_environments(settings, paths):
        for site in paths.envs.glob(f"{name}/lib/python3*/site-packages"):
            for entry in importlib.metadata.distributions(path=[str(site)]):
                package = re.sub(r"[-_.]+", "-", entry.metadata["Name"] or "").lower()
                floor = advisories.FLOOR.get(package)
                if floor and Version(entry.version) < Version(floor):
                    text = f"{package} {entry.version} has a known hole; {floor} closes it"
                    hint = "labhub up makes the environment anew from images/"
                    problems.append(Problem(f"environment {name}", text, hint))
                elif package in ("jupyterhub", "jupyter-server"):
                    shown.append(f"{name}: {package} {entry.version}")
    try:
        node, _ = toolchain.node_programs(paths)
        shown.append(f"Node at {node}")
    except toolchain.BuildError as error:
        problems.append(Problem("proxy", str(error), "labhub up"))
    shown.append(
        f"none below the floor of {advisories.FLOOR_DATE}" if not problems else "see below"
    )
    return Finding("versions", "; ".join(shown), tuple(problems))


def known_holes(address: str = advisories.OSV) -> Finding:
    """Ask OSV for advisories on all that the lock files name, npm and jars included.

    Parameters
    ----------
    address : str
        OSV's.
    """
    try:
        number, holes = advisories.ask(REPOSITORY / "images", address)
    except advisories.NotAskedError as error:
        text = f"were not asked for: OSV cannot be reached ({error})"
        hint = "ask from a machine that reaches the internet"
        problem = Problem("advisories", text, hint, warning=True)
        return Finding("advisories", "not asked", (problem,))
    problems = [
        Problem(
            ", ".join(hole.locks),
            f"{hole.package.name} {hole.package.version}: {hole.id} {hole.summary}".rstrip(),
            f"{' or '.join(hole.fixed)} closes it" if hole.fixed else "no version closes it yet",
            warning=True,
        )
        for hole in holes
    ]
    return Finding("advisories", f"{number} packages, {len(holes)} advisories", tuple(problems))


def built(settings: Settings, paths: Paths) -> Finding:
    """Look whether the environments are what images/ says."""
    own = build.Environments(paths)
    problems = []
    wanted = preflight.wanted_environments(settings, paths)
    for name in wanted:
        if not own.is_current(name):
            state = "is out of date" if own.folder(name).exists() else "is not there"
            problems.append(Problem(f"environment {name}", state, "labhub up"))
    linked = [name for name in wanted if own.is_adopted(name)]
    detail = ", ".join(f"{name} (a link)" if name in linked else name for name in wanted)
    return Finding("environments", detail, tuple(problems))


def disk(settings: Settings, paths: Paths) -> Finding:
    """Look for room where state, homes and temporary files are."""
    problems: list[Problem] = []
    shown: dict[int, str] = {}
    for folder in (paths.state, paths.envs, settings.storage.homes, Path("/tmp")):  # noqa: S108
        if not folder.is_dir():
            continue
        usage = shutil.disk_usage(folder)
        shown.setdefault(folder.stat().st_dev, f"{folder} {format_size(usage.free)} free")
        if usage.free < _DISK_FREE or usage.free < _DISK_PART * usage.total:
            text = f"only {format_size(usage.free)} free"
            problems.append(Problem(str(folder), text, "delete something, or enlarge the disk"))
        inodes = os.statvfs(folder)
        if inodes.f_files and inodes.f_favail < 10_000:
            text = f"room for {inodes.f_favail} more files only"
            problems.append(Problem(str(folder), text, "delete some of the many small files"))
    return Finding("disk", ", ".join(shown.values()), tuple(problems))


def homes(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001 - as every look's
    """Name the largest homes, as far as they can be measured in a short time."""
    if settings.authentication.effective_method not in ("pam", "signup") or os.geteuid() != 0:
        return Finding("homes", "each person sees what their own holds")
    end = time.monotonic() + _HOMES_TIME
    sizes: dict[str, int] = {}
    left_out = 0
    for account in accounts_of(settings).list():
        size = None
        if time.monotonic() < end:
            size = home_use.measure(pwd.getpwnam(account.name), end - time.monotonic())
        if size is None:
            left_out += 1
        else:
            sizes[account.name] = size
    largest = sorted(sizes, key=lambda name: -sizes[name])[:_HOMES_SHOWN]
    shown = [f"{name} {format_size(sizes[name])}" for name in largest]
    shown += [f"{left_out} not measured: it takes too long"] if left_out else []
    return Finding("homes", ", ".join(shown) or "none")


def quota(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001 - as every look's
    """Say whether the limit of homes is enforced where they lie."""
    size = settings.storage.home_quota
    if size is None:
        return Finding("quota", "none (storage.home_quota)")
    place = settings.storage.homes
    try:
        reason = quotas.obstacle(place, quotas.file_system(place))
    except quotas.QuotaError as error:
        reason = str(error)
    text = f"{format_size(size)} for each home is not enforced: {reason}"
    hint = "docs/how-to/storage.md says what it needs"
    problems = (Problem("storage.home_quota", text, hint, warning=True),) if reason else ()
    return Finding("quota", f"{format_size(size)} for each home", problems)


def permissions(settings: Settings, paths: Paths) -> Finding:
    """Look whether others can read or write what they must not."""
    problems = list(create.secret_problems(paths, settings.secrets.mounted))
    private = [paths.secrets, paths.log, paths.run, paths.backups]
    private += _database_files(settings, paths)
    private += paths.secrets.glob("*") if os.access(paths.secrets, os.R_OK) else []
    for path in private:
        problems += _open_to_others(path, 0o077)
    for path in (paths.state, paths.envs, REPOSITORY):
        problems += _open_to_others(path, 0o022)
    homes = 0
    if settings.authentication.effective_method in ("pam", "signup") and os.geteuid() == 0:
        for account in accounts_of(settings).list():
            homes += 1
            problems += _open_to_others(account.home, 0o077)
    unique = {problem.where: problem for problem in reversed(problems)}
    detail = f"{paths.state}, {homes} homes" if homes else str(paths.state)
    return Finding("permissions", detail, tuple(reversed(unique.values())))


def _database_files(settings: Settings, paths: Paths) -> Iterable[Path]:
    with contextlib.suppress(ProblemsError):  # `database` says so
        file = HubDatabase.of(settings, paths).file
        return [] if file is None else [file, *(Path(f"{file}-{end}") for end in ("wal", "shm"))]
    return []


def clock(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001
    """Look whether the clock is plausible: no file from the future, and set by the net.

    Without another clock to ask, more cannot be told honestly.
    """
    problems = []
    now = time.time()
    files = [p for p in (*paths.state.glob("*"), *paths.log.glob("*")) if p.exists()]
    newest = max(files, key=lambda p: p.stat().st_mtime, default=None)
    if newest is not None and newest.stat().st_mtime > now + _AHEAD:
        text = f"{newest} was written in the future: the clock went back"
        problems.append(Problem("clock", text, "set the clock; logins and tokens depend on it"))
    if now < (REPOSITORY / "labhub").stat().st_mtime - 86400:
        text = f"it is {time.strftime('%Y-%m-%d')} here, before this program was written"
        problems.append(Problem("clock", text, "set the clock"))
    detail = time.strftime("%Y-%m-%d %H:%M %Z")
    if Path("/run/systemd/system").is_dir() and shutil.which("timedatectl"):
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        if shown.stdout.strip() == "no":
            hint = "timedatectl set-ntp true"
            problems.append(Problem("clock", "is not set by the network", hint, warning=True))
        else:
            detail += ", set by the network"
    return Finding("clock", detail, tuple(problems))


def names(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001
    """Look whether the portal's host, and people's subdomains of it, are found."""
    host = settings.parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return Finding("names", f"{host}: browsers find *.{host} on this machine by themselves")
    problems = []
    wanted = [host]
    if settings.isolation == "subdomain":
        wanted.append(f"labhub-doctor.{host}")
    for name in wanted:
        try:
            socket.getaddrinfo(name, None)
        except OSError:
            entry = f"*.{host}" if name != host else host
            hint = f"add a DNS entry {entry}, or choose isolation: path if there can be none"
            problems.append(Problem("url", f"{name} has no address", hint))
    return Finding("names", ", ".join(wanted), tuple(problems))


def cookies(settings: Settings, paths: Paths) -> Finding:  # noqa: ARG001 - as every look's
    """Say whether a page of a member's can set the login cookies of hub and apps for others."""
    if settings.parts.scheme == "https" and settings.isolation == "subdomain":
        return Finding("cookies", "bound to one address each: no other page can set them")
    if settings.parts.scheme == "https":
        detail = "isolation: path: pages of members and the hub share their cookies"
    else:
        detail = (
            "http: a page that a member wrote can set cookies for the hub, and log the person who"
            " opens it out or in as somebody else; https:// in url closes it"
        )
    return Finding("cookies", detail)


def portal(settings: Settings, paths: Paths) -> Finding:
    """Look whether the portal runs and answers, from the proxy to the hub's API."""
    supervisor = Supervisor(paths)
    known = supervisor.info()
    if not known:
        text, hint = "is down", "labhub up"
        return Finding("portal", "down", (Problem("portal", text, hint, warning=True),))
    problems = []
    for name in programs(settings):
        if name not in known or not known[name].running:
            now = known[name].state.lower() if name in known else "not there"
            problems.append(Problem(name, f"is {now}", f"labhub logs {name}"))
    if not ready.answers(settings, timeout=10):
        problems.append(Problem(settings.url, "the hub does not answer there", "labhub logs hub"))
    try:
        routes = Control(settings, paths).call("GET", "/proxy")
        detail = f"{settings.url}, {len(routes)} routes"
    except (ControlError, ProblemsError) as error:
        detail = settings.url
        problems.append(Problem("hub", str(error), "labhub restart hub"))
    return Finding("portal", detail, tuple(problems))


def database(settings: Settings, paths: Paths) -> Finding:
    """Look whether the hub's database is whole, or its server answers."""
    try:
        detail, problems = HubDatabase.of(settings, paths).look()
    except ProblemsError as error:
        return Finding("database", "", error.problems)
    return Finding("database", detail, tuple(problems))


def node(settings: Settings, paths: Paths, partition: str = "") -> Finding:
    """Try from a machine of user servers what they need there; see `Target.node_finding`."""
    return targets.of(settings, paths).node_finding(partition)


def apps(settings: Settings, paths: Paths) -> Finding:
    """Look whether CellxGene can start, RStudio is there and the lab's other apps answer."""
    problems, shown = [], []
    program = paths.env_bin("cellxgene", "cellxgene")
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
        shown.append(done.stdout.strip() or "cellxgene")
        if done.returncode:
            text = f"does not start: {done.stderr.strip()[-200:]}"
            problems.append(Problem("cellxgene", text, "labhub up"))
    except (OSError, subprocess.TimeoutExpired) as error:
        problems.append(Problem("cellxgene", f"does not start: {error}", "labhub up"))
    for app in settings.apps:
        try:
            with urllib.request.urlopen(app.url, timeout=5) as answer:  # noqa: S310 - http(s) only
                shown.append(f"{app.name} {answer.status}")
        except urllib.error.HTTPError as error:
            shown.append(f"{app.name} {error.code}")
            if error.code >= 500:
                text = f"{app.url} answers {error.code}"
                problems.append(Problem(f"apps.{app.name}", text, "ask who runs it"))
        except OSError as error:
            text = f"{app.url} does not answer: {getattr(error, 'reason', error)}"
            problems.append(Problem(f"apps.{app.name}", text, "start it, or correct its url"))
    if rstudio.has_r(settings.profiles) and (place := rstudio.rserver()):
        shown.append(f"RStudio Server at {place}")
    here = targets.of(settings, paths).on_this_machine
    problems += rstudio.problems(settings.profiles, on_this_machine=here)
    return Finding("apps", ", ".join(shown), tuple(problems))


def _open_to_others(path: Path, mask: int) -> Iterable[Problem]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if mode & mask and not (mask == 0o022 and mode & stat.S_ISVTX):
        can = "read" if mask & 0o044 else "change"
        letters = "go=" if mask == 0o077 else "go-w"
        yield Problem(str(path), f"others can {can} it (mode {mode:o})", f"chmod {letters} {path}")
