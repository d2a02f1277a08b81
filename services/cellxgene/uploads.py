"""Uploads on their way to become a version: checked before, while and after they come in."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from labkit.base.problems import Problem
from labkit.base.units import format_size
from labkit.viewers.paths import private_folder
from services.appkit.person import Person
from services.appkit.published.publisher import now
from services.appkit.published.statements import RefusedPublishError
from services.cellxgene.answers import Key
from services.cellxgene.catalogue import Catalogue
from services.cellxgene.inspection import look, too_big
from services.cellxgene.pool import Pool
from services.cellxgene.records import OPENING, THUMBNAIL, Facts, Version
from services.cellxgene.request import Announcement
from services.cellxgene.viewer import Shown, ViewerError

State = Literal["waiting", "receiving", "checking", "published", "refused"]
log = logging.getLogger(__name__)
_PIECE = 4 << 20
_CUT_OFF = "The connection ended before the file was complete."


@dataclass(frozen=True)
class Limits:
    """What uploads may take.

    Attributes
    ----------
    memory : int
        The most that one dataset may need in CellxGene, in bytes.
    spare : int
        Bytes of the disk that are never filled.
    each : int
        Uploads that one person may have at a time.
    wait : float
        Seconds after which an upload that nothing comes for is given up.
    inspect : float
        Seconds that looking into a file may take.
    """

    memory: int
    spare: int = 1 << 30
    each: int = 2
    wait: float = 600.0
    inspect: float = 300.0


@dataclass
class Upload:
    """One upload, from its announcement until its end was told.

    Attributes
    ----------
    id : str
        Unguessable.
    person : Person
        Who sends it.
    name : str
        The dataset's.
    announced : Announcement
        What was said of it before.
    path : Path
        Where it is received.
    state, step : str
        How it is and what happens.
    problems : list of str
        Why it was refused.
    number : int
        The version that it became.
    """

    id: str
    person: Person
    name: str
    announced: Announcement
    path: Path
    state: State = "waiting"
    step: str = "Waiting for the file"
    problems: list[str] = field(default_factory=list)
    number: int = 0
    touched: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("waiting", "receiving", "checking")


class Uploads:
    """All uploads.

    Parameters
    ----------
    limits : Limits
        What they may take.
    folder : Path
        Where files are received; what an earlier run left there is removed.
    catalogue : Catalogue
        Where they end up.
    pool : Pool
        Opens each once, as proof.
    python : Path
        Python of CellxGene's environment.
    """

    def __init__(
        self, limits: Limits, folder: Path, catalogue: Catalogue, pool: Pool, python: Path
    ) -> None:
        self.limits = limits
        self._folder = private_folder(folder)
        for left in folder.iterdir():
            left.unlink()
        self._catalogue = catalogue
        self._pool = pool
        self._python = python
        self._uploads: dict[str, Upload] = {}

    def begin(self, person: Person, name: str, announced: Announcement) -> Upload:
        """Announce an upload: everything that can be known before is checked now.

        Raises
        ------
        RefusedPublishError
            With all the reasons.
        """
        self._tidy()
        problems = list(self._catalogue.problems(person, name, announced))
        problems += self._no_room(announced)
        for other in self._uploads.values():
            if other.open and other.name == name:
                if other.person.name == person.name and other.state == "waiting":
                    self._end(other, "refused", ["Another upload has taken its place."])
                else:
                    who = other.person.name
                    problems.append(
                        Problem("name", f"{who} is publishing '{name}' now.", "Wait until it ends.")
                    )
        mine = [
            one for one in self._uploads.values() if one.open and one.person.name == person.name
        ]
        if len(mine) >= self.limits.each:
            problems.append(Problem("upload", f"{len(mine)} of yours are under way.", "Wait."))
        if problems:
            raise RefusedPublishError(problems)
        upload_id = secrets.token_urlsafe(18)
        path = self._folder / f"{upload_id}.h5ad"
        upload = self._uploads[upload_id] = Upload(upload_id, person, name, announced, path)
        return upload

    def _no_room(self, announced: Announcement) -> list[Problem]:
        problems = []
        if announced.need > self.limits.memory:
            problems.append(
                too_big(announced.need, self.limits.memory, announced.cells, announced.genes)
            )
        reserved = sum(one.announced.size for one in self._uploads.values() if one.open)
        for free in (shutil.disk_usage(self._folder).free, self._catalogue.store.free()):
            if free is not None and announced.size + reserved + self.limits.spare > free:
                problems.append(
                    Problem(
                        "disk",
                        f"{format_size(announced.size)} are needed, and of the "
                        f"{format_size(free)} that are free "
                        f"{format_size(reserved + self.limits.spare)} are kept for others.",
                        "Unpublish with delete=True what nobody needs, or ask an administrator.",
                    )
                )
                break
        return problems

    def get(self, person: Person, upload_id: str) -> Upload | None:
        """Return an upload of that person's."""
        upload = self._uploads.get(upload_id)
        return upload if upload is not None and upload.person.name == person.name else None

    async def receive(self, person: Person, upload: Upload, pieces: AsyncIterator[bytes]) -> None:
        """Take the file in, then begin to check it; what is incomplete is removed.

        Parameters
        ----------
        person : Person
            Its sender, with the groups of this moment.
        upload : Upload
            What was announced.
        pieces : async iterator of bytes
            The file.

        Raises
        ------
        RefusedPublishError
            It is not what was announced, or there is no room for it.
        """
        if upload.state != "waiting":
            raise RefusedPublishError([Problem("upload", f"it is {upload.state} already.")])
        upload.person = person
        upload.state, upload.step = "receiving", "Receiving the file"
        try:
            await self._receive(upload, pieces)
        except RefusedPublishError as error:
            self._end(upload, "refused", [str(one) for one in error.problems])
            raise
        except ConnectionError:
            self._end(upload, "refused", [_CUT_OFF])
            raise
        except OSError as error:
            problem = Problem("disk", f"the file cannot be kept: {error.strerror or error}.")
            self._end(upload, "refused", [str(problem)])
            raise RefusedPublishError([problem]) from error
        except BaseException:
            self._end(upload, "refused", [_CUT_OFF])
            raise
        upload.state = "checking"
        upload.task = asyncio.ensure_future(self._check(upload))

    async def _receive(self, upload: Upload, pieces: AsyncIterator[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        announced = upload.announced
        with upload.path.open("xb") as file:
            upload.path.chmod(0o600)

            def write(piece: bytes) -> None:
                digest.update(piece)
                file.write(piece)

            async for piece in _gathered(pieces):
                size += len(piece)
                upload.touched = time.monotonic()
                if size > announced.size:
                    break
                await asyncio.to_thread(write, piece)
        if size != announced.size or digest.hexdigest() != announced.sha256:
            raise RefusedPublishError(
                [Problem("file", "it did not arrive as it was sent.", "Publish it again.")]
            )

    # -- checks -----------------------------------------------------------------------

    async def _check(self, upload: Upload) -> None:
        name = upload.name
        try:
            upload.step = "Looking into the file"
            facts = await self._look(upload)
            number = await asyncio.to_thread(self._catalogue.store.next_number, name)
            key = Key(name, number)
            try:
                upload.step = "Opening it once in CellxGene"
                shown = Shown(
                    title=self._catalogue.title(name, upload.announced),
                    cells=facts.cells,
                    genes=facts.genes,
                    need=facts.need,
                    fetch=lambda _: upload.path,
                )
                opening = await self._pool.first_picture(key, shown)
                upload.step = "Storing it"
                await self._commit(upload, facts, number, opening)
            except BaseException:
                await self._pool.stop(*key)
                raise
        except RefusedPublishError as error:
            self._end(upload, "refused", [str(one) for one in error.problems])
        except (ViewerError, TimeoutError) as error:
            text = str(error) or "CellxGene took too long to open it."
            self._end(upload, "refused", [f"CellxGene does not show it. {text}"])
        except Exception:
            log.exception("an upload of %s", name)
            text = (
                "The service failed; nothing was changed. An administrator finds more in its log."
            )
            self._end(upload, "refused", [text])

    async def _look(self, upload: Upload) -> Facts:
        most = self.limits.memory
        facts = await look(self._python, upload.path, memory=most, seconds=self.limits.inspect)
        if facts.need > most:
            raise RefusedPublishError([too_big(facts.need, most, facts.cells, facts.genes)])
        return facts

    async def _commit(
        self, upload: Upload, facts: Facts, number: int, opening: bytes | None
    ) -> None:
        announced = upload.announced
        beside = {THUMBNAIL: announced.thumbnail, OPENING: opening}
        version = Version(
            number=number,
            created=now(),
            author=upload.person.name,
            title=self._catalogue.title(upload.name, announced),
            size=announced.size,
            sha256=announced.sha256,
            source=announced.source,
            software=announced.software,
            changes=announced.changes,
            facts=facts,
            thumbnail=announced.thumbnail is not None,
        )
        files = {name: content for name, content in beside.items() if content is not None}
        await self._catalogue.publish(
            upload.person, upload.name, announced, version, upload.path, files
        )
        upload.number = number
        log.info("%s has published %s, version %d", upload.person.name, upload.name, number)
        self._end(upload, "published", [])

    # -- ends -------------------------------------------------------------------------

    async def cancel(self, upload: Upload) -> None:
        """Give an upload up; one that is being checked is stopped."""
        if upload.task is not None and not upload.task.done():
            upload.task.cancel()
            await asyncio.wait([upload.task])
        if upload.open:
            self._end(upload, "refused", ["It was cancelled."])

    def _end(self, upload: Upload, state: State, problems: list[str]) -> None:
        upload.state, upload.problems = state, problems
        upload.step = "Published" if state == "published" else "Refused"
        upload.touched = time.monotonic()
        upload.path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        old = time.monotonic() - self.limits.wait
        for upload in list(self._uploads.values()):
            if upload.touched < old:
                if upload.state == "waiting":
                    self._end(upload, "refused", ["Nothing was sent."])
                elif not upload.open:
                    del self._uploads[upload.id]

    async def look_after(self, seconds: float = 30.0) -> None:
        """Give up what nothing comes for, for ever."""
        while True:
            await asyncio.sleep(seconds)
            self._tidy()

    async def close(self) -> None:
        """Give all up."""
        for upload in list(self._uploads.values()):
            await self.cancel(upload)


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield larger pieces: each costs a change of threads."""
    kept = bytearray()
    async for piece in pieces:
        kept += piece
        if len(kept) >= _PIECE:
            yield bytes(kept)
            kept.clear()
    if kept:
        yield bytes(kept)


def described(upload: Upload) -> dict[str, object]:
    """Return what its sender is told, as JSON knows it."""
    return {
        "id": upload.id,
        "state": upload.state,
        "step": upload.step,
        "problems": upload.problems,
        "version": upload.number,
    }
