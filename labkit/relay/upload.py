"""A request's body on its way from the browser to the app: a few pieces at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_PIECES = 8


class UploadAbortedError(ConnectionError):
    """The browser went away before the body was complete."""


class Upload:
    """A short queue: who fills it waits for who empties it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._aborted = False
        self.ignored = 0

    async def put(self, chunk: bytes, unless: asyncio.Future[None]) -> None:
        """Add a piece; wait until there is room for the next, unless that has ended."""
        self._queue.put_nowait(chunk)
        if self._queue.qsize() >= _PIECES:
            self._room.clear()
            unless.add_done_callback(self._wake)
            await self._room.wait()
            unless.remove_done_callback(self._wake)

    def _wake(self, _: asyncio.Future[None]) -> None:
        self._room.set()

    def end(self) -> None:
        """Say that the body is complete."""
        self._queue.put_nowait(None)

    def abort(self) -> None:
        """Say that the rest will never come."""
        self._aborted = True
        self._room.set()
        self._queue.put_nowait(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises
        ------
        UploadAbortedError
            It is incomplete.
        """
        while (chunk := await self._queue.get()) is not None:
            if self._queue.qsize() < _PIECES // 2:
                self._room.set()
            yield chunk
        if self._aborted:
            raise UploadAbortedError("the browser closed the connection")
