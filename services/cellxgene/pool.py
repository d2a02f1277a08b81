"""The viewers that run: started when somebody asks, stopped when idle or when memory is short."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from labkit.base import files
from labkit.base.remove import remove_tree
from labkit.base.units import format_size
from labkit.viewers.cellxgene.memory import COMPARE_BYTES, available
from labkit.viewers.paths import private_folder
from services.cellxgene import opening
from services.cellxgene.answers import Answer, Answers, Key
from services.cellxgene.viewer import Shown, Viewer, ViewerError

log = logging.getLogger(__name__)
# CellxGene's own scripts and styles are the same for all.
ASSETS = Key("", 0)
_LOOK = 2.0  # seconds between two looks at what runs


@dataclass(frozen=True)
class Limits:
    """What the viewers may take.

    Attributes
    ----------
    memory : int
        All viewers together, in bytes.
    idle : float
        Seconds after its last use at which a viewer is stopped.
    settle : float
        Seconds for which a viewer in use is not stopped for another one.
    start, room : float
        Seconds that a start may take, and that it may wait for memory before.
    crashes, forget_after : int, float
        After so many crashes within so many seconds a dataset is not started again.
    """

    memory: int
    idle: float = 1800.0
    settle: float = 10.0
    start: float = 600.0
    room: float = 60.0
    crashes: int = 3
    forget_after: float = 300.0


class NoRoomError(ViewerError):
    """The memory is taken by datasets in use; nothing is wrong with this one."""


class Pool:
    """All viewers.

    Parameters
    ----------
    limits : Limits
        What they may take.
    folder : Path
        For their sockets and logs; short, since a socket's path is.
    python : Path
        Python of CellxGene's environment.
    answers : Answers
        Where what they answered is kept.
    left : callable, optional
        Returns the memory that a new process may take, in bytes; for tests.
    """

    def __init__(
        self,
        limits: Limits,
        folder: Path,
        python: Path,
        answers: Answers,
        left: Callable[[], int] = lambda: available().size,
    ) -> None:
        self.limits = limits
        self.answers = answers
        self._folder = private_folder(folder)
        for rest in folder.glob("v*"):  # of an earlier run
            remove_tree(rest)
        self._python = python
        self._left = left
        self._stamp = opening.stamp(python)
        self._assets = folder / "assets.zip"
        self._load_assets()
        self._viewers: dict[Key, Viewer] = {}
        self._crashes: dict[Key, list[float]] = {}
        self._count = itertools.count(1)
        self._turn = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        # Comparisons take the most memory by far, so there is one at a time.
        self.comparing = asyncio.Semaphore(1)

    def get(self, key: Key) -> Viewer | None:
        """Return a viewer that runs, starts or has failed."""
        return self._viewers.get(key)

    def running(self) -> list[Viewer]:
        """Return the viewers with a process."""
        return [one for one in self._viewers.values() if one.alive]

    def want(self, key: Key, shown: Shown) -> Viewer:
        """Return a viewer at once; its start begins where it does not run."""
        viewer = self._viewers.get(key)
        if viewer is not None and (viewer.state in ("starting", "ready") or self._gave_up(viewer)):
            viewer.used = time.monotonic()
            return viewer
        # A folder of its own: the one before may still be ending.
        viewer = Viewer(key, shown, self._folder / f"v{next(self._count)}")
        self._viewers[key] = viewer
        viewer.task = asyncio.ensure_future(self._start(viewer))
        return viewer

    async def ready(self, key: Key, shown: Shown, seconds: float) -> Viewer:
        """Return a viewer that shows its data.

        Raises
        ------
        ViewerError
            It failed.
        TimeoutError
            It takes longer; the start goes on.
        """
        viewer = self.want(key, shown)
        if viewer.task is not None and viewer.state == "starting":
            # Not awaited itself: its cancellation would be taken for that of the request.
            done, _ = await asyncio.wait({viewer.task}, timeout=seconds)
            if not done:
                raise TimeoutError
        if viewer.state != "ready":
            raise ViewerError(viewer.error or "It was stopped while it was starting.")
        return viewer

    # -- the first picture ------------------------------------------------------------

    async def first_picture(self, key: Key, shown: Shown) -> bytes | None:
        """Open a dataset as a browser does; return the answers as a file to keep beside it.

        Raises
        ------
        ViewerError
            It failed, or one of the answers was an error.
        """
        viewer = await self.ready(key, shown, self.limits.start)
        return opening.pack(self._stamp, await self._collect(viewer))

    async def _collect(self, viewer: Viewer) -> dict[str, Answer]:
        """Ask for what the first picture needs, and what comes right after it; keep it."""
        answers: dict[str, Answer] = {}
        for target in opening.FIRST:
            answers[target] = await self._asked(viewer, target)
        picture, later = opening.of_schema(answers[opening.SCHEMA])
        for target in picture:
            answers[target] = await self._asked(viewer, target)
        size = sum(answer.size for answer in answers.values())
        for target in later:
            answer = await self._asked(viewer, target)
            size += answer.size
            if size > opening.LARGEST:
                break
            answers[target] = answer
        self.answers.open_with(viewer.key, answers)
        return answers

    async def _keep_assets(self, viewer: Viewer) -> None:
        """Keep CellxGene's own scripts and styles, also for the next start of the service."""
        if self._assets.exists():
            return
        index = await self._asked(viewer, "")
        assets = {one: await self._asked(viewer, one) for one in opening.assets(index)}
        for style in [one for one in assets if one.endswith(".css")]:
            for font in opening.fonts(assets[style]):
                assets[font] = await self._asked(viewer, font)
        packed = opening.pack(self._stamp, assets)
        if packed is not None:
            await asyncio.to_thread(files.write_atomic, self._assets, packed)
            self.answers.open_with(ASSETS, assets)

    def _load_assets(self) -> None:
        try:
            assets = opening.unpack(self._stamp, self._assets.read_bytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            assets = {}
        if assets:
            self.answers.open_with(ASSETS, assets)
        else:
            self._assets.unlink(missing_ok=True)  # of another CellxGene, or damaged

    @staticmethod
    async def _asked(viewer: Viewer, target: str) -> Answer:
        try:
            answer = await viewer.ask(target)
        except aiohttp.ClientError as error:
            raise viewer.failed(f"CellxGene broke off at '{target}'") from error
        if answer.status != 200:
            raise viewer.failed(f"CellxGene answered {answer.status} to '{target}'")
        return answer

    def open_with(self, key: Key, packed: bytes) -> None:
        """Take over the answers that were kept beside a dataset."""
        try:
            answers = opening.unpack(self._stamp, packed)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("%s: the answers kept beside it are damaged: %s", key, error)
            return
        if answers:
            self.answers.open_with(key, answers)
        if not self.answers.can_open(ASSETS):
            self._load_assets()

    def can_open(self, key: Key) -> bool:
        """Return whether the first picture can be shown without a viewer."""
        index = self.answers.peek(key, "")
        return (
            index is not None
            and self.answers.can_open(key)
            and all(self.answers.peek(ASSETS, one) for one in opening.assets(index))
        )

    def forgive(self, key: Key) -> None:
        """Forget the crashes of a dataset, so that it may be started again."""
        self._crashes.pop(key, None)

    def _gave_up(self, viewer: Viewer) -> bool:
        if viewer.state != "failed":
            return False
        since = time.monotonic() - self.limits.forget_after
        recent = [one for one in self._crashes.get(viewer.key, ()) if one > since]
        self._crashes[viewer.key] = recent
        return len(recent) >= self.limits.crashes

    # -- starting ---------------------------------------------------------------------

    async def _start(self, viewer: Viewer) -> None:
        try:
            await self._begin(viewer)
        except asyncio.CancelledError:
            await viewer.stop()
            raise
        except Exception as error:
            expected = isinstance(error, ViewerError)
            log.log(logging.WARNING if expected else logging.ERROR, "%s: %s", viewer.key, error)
            crashed = not isinstance(error, NoRoomError)
            self._fail(viewer, str(error) or type(error).__name__, crashed)
            await viewer.stop()

    async def _begin(self, viewer: Viewer) -> None:
        def say(step: str) -> None:
            viewer.step = step

        say("Looking for the data")
        path = await asyncio.to_thread(viewer.shown.fetch, say)
        async with self._turn:  # one by one, so that each sees the memory the last one took
            await self._make_room(viewer)
            say("CellxGene is loading the data")
            await viewer.start(self._python, path, self._most_compared(viewer.shown))
        task = asyncio.ensure_future(self._watch(viewer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await viewer.wait_until_it_shows(self.limits.start)
        await self._keep_assets(viewer)
        viewer.state, viewer.step = "ready", "Ready"
        viewer.used = time.monotonic()

    def _most_compared(self, shown: Shown) -> int | None:
        spare = max(0, self.limits.memory - shown.need)
        most = max(1, int(spare / (max(1, shown.genes) * COMPARE_BYTES)))
        return most if most < shown.cells else None

    async def _make_room(self, viewer: Viewer) -> None:
        end = time.monotonic() + self.limits.room
        while (short := self._short_of(viewer)) > 0:
            oldest = self._least_used(besides=viewer)
            if oldest is not None:
                log.info("%s is stopped: %s needs its memory", oldest.key, viewer.key)
                await oldest.stop()
                continue
            if time.monotonic() > end:
                raise NoRoomError(
                    f"It needs {format_size(viewer.shown.need)} of memory, and "
                    f"{format_size(short)} of that are taken by datasets that other "
                    "people use now. Try again later."
                )
            viewer.step = "Waiting for memory: others are in use"
            await asyncio.sleep(0.5)

    def _short_of(self, viewer: Viewer) -> int:
        """Return the bytes that a new viewer would lack."""
        others = [one for one in self.running() if one is not viewer]
        held = {id(one): one.memory() for one in others}
        promised = sum(max(one.shown.need, held[id(one)]) for one in others)
        to_come = sum(max(0, one.shown.need - held[id(one)]) for one in others)
        need = viewer.shown.need
        return max(promised + need - self.limits.memory, need + to_come - self._left())

    def _least_used(self, besides: Viewer | None = None) -> Viewer | None:
        settled = time.monotonic() - self.limits.settle
        free = [
            one
            for one in self.running()
            if one is not besides and one.state == "ready" and not one.busy and one.used < settled
        ]
        return min(free, key=lambda one: one.used, default=None)

    # -- running and ending -----------------------------------------------------------

    async def _watch(self, viewer: Viewer) -> None:
        """Notice when a process ends by itself."""
        assert viewer.process is not None  # noqa: S101 - watched once it was started
        await viewer.process.wait()
        if viewer.state == "ready":
            error = viewer.failed("CellxGene ended")
            log.warning("%s: %s\n%s", viewer.key, error, viewer.tail())
            self._fail(viewer, str(error))
            await viewer.stop()

    def _fail(self, viewer: Viewer, error: str, crashed: bool = True) -> None:
        viewer.state, viewer.error = "failed", error
        if crashed:
            self._crashes.setdefault(viewer.key, []).append(time.monotonic())

    async def look_after(self) -> None:
        """Stop what is idle, and what is too much, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(OSError):
                await self.look()

    async def look(self) -> None:
        """Stop the viewers that are idle; and the least used where all take too much."""
        idle = time.monotonic() - self.limits.idle
        for viewer in self.running():
            if viewer.state == "ready" and not viewer.busy and viewer.used < idle:
                log.info("%s is stopped: nobody uses it", viewer.key)
                await viewer.stop()
        while sum(one.memory() for one in self.running()) > self.limits.memory:
            oldest = self._least_used()
            if oldest is None or len(self.running()) < 2:
                break
            log.info("%s is stopped: all take more memory than they may", oldest.key)
            await oldest.stop()

    async def stop(self, name: str, number: int | None = None) -> None:
        """Stop the viewers of a dataset, or of one of its versions, and forget its answers."""
        for key, viewer in list(self._viewers.items()):
            if key.name == name and number in (None, key.number):
                await self._end(viewer)
                del self._viewers[key]
                self._crashes.pop(key, None)
        self.answers.forget(name, number)

    async def close(self) -> None:
        """Stop all."""
        await asyncio.gather(*(self._end(one) for one in self._viewers.values()))
        self._viewers.clear()

    @staticmethod
    async def _end(viewer: Viewer) -> None:
        if viewer.task is not None and not viewer.task.done():
            viewer.task.cancel()
            await asyncio.wait([viewer.task])
        await viewer.stop()
