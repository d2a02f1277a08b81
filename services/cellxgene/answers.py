"""Answers of CellxGene, kept: a published version never changes, so neither do they.

Twenty people who open one dataset cost CellxGene (one Python process) one opening; a request
that several make at the same moment is asked once.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Key(NamedTuple):
    """One version of one dataset."""

    name: str
    number: int


@dataclass(frozen=True)
class Answer:
    """What CellxGene answered to a GET.

    Attributes
    ----------
    status : int
        HTTP status.
    content_type : str
        Media type.
    encoding : str
        ``gzip``, or empty.
    body : bytes
        As it goes over the wire.
    """

    status: int
    content_type: str
    encoding: str
    body: bytes

    @cached_property
    def etag(self) -> str:
        """Name of the content."""
        return f'"{hashlib.blake2b(self.body, digest_size=12).hexdigest()}"'

    @property
    def text(self) -> str:
        """The body as text."""
        body = gzip.decompress(self.body) if self.encoding else self.body
        return body.decode("utf-8")

    @property
    def size(self) -> int:
        """Bytes it takes here, about."""
        return len(self.body) + 500


class Answers:
    """Keeps answers, the longest unused go first.

    Parameters
    ----------
    most : int
        Bytes that all may take together; one takes at most an eighth of it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._kept: OrderedDict[tuple[Key, str], Answer] = OrderedDict()
        self._asked: dict[tuple[Key, str], asyncio.Future[Answer]] = {}
        self._opening: dict[Key, tuple[str, ...]] = {}

    def peek(self, key: Key, target: str) -> Answer | None:
        """Return a kept answer; it counts as used now."""
        answer = self._kept.get((key, target))
        if answer is not None:
            self._kept.move_to_end((key, target))
        return answer

    def can_open(self, key: Key) -> bool:
        """Return whether all answers of the first picture are kept."""
        targets = self._opening.get(key, ())
        return bool(targets) and all((key, target) in self._kept for target in targets)

    def open_with(self, key: Key, answers: Mapping[str, Answer]) -> None:
        """Keep answers: those of the first picture, and what is asked for after it."""
        for target, answer in answers.items():
            self.keep(key, target, answer)
        self._opening[key] = tuple(answers)

    def keep(self, key: Key, target: str, answer: Answer) -> None:
        """Keep an answer, where it is a good one and not too large."""
        if answer.status != 200 or answer.size > self.most // 8:
            return
        self._drop((key, target))
        self._kept[key, target] = answer
        self.size += answer.size
        while self.size > self.most:
            self._drop(next(iter(self._kept)))

    async def get(self, key: Key, target: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return a kept answer, or the one that is being asked for, or ask."""
        kept = self.peek(key, target)
        if kept is not None:
            return kept
        pending = self._asked.get((key, target))
        if pending is None:
            # A task of its own: who asked first may go away, the others wait on.
            pending = asyncio.ensure_future(ask())
            self._asked[key, target] = pending
            pending.add_done_callback(lambda done: self._answered(key, target, done))
        return await asyncio.shield(pending)

    def _answered(self, key: Key, target: str, done: asyncio.Future[Answer]) -> None:
        self._asked.pop((key, target), None)
        if not done.cancelled() and done.exception() is None:
            self.keep(key, target, done.result())

    def forget(self, name: str, number: int | None = None) -> None:
        """Drop the answers of a dataset, or of one of its versions."""
        for key, target in list(self._kept):
            if key.name == name and number in (None, key.number):
                self._drop((key, target))
                self._opening.pop(key, None)

    def _drop(self, entry: tuple[Key, str]) -> None:
        gone = self._kept.pop(entry, None)
        if gone is not None:
            self.size -= gone.size
