"""What there is to read: all sections' files and their words, always as the folders now are."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from labkit.base.problems import LabkitError
from services.docs import markdown
from services.docs.files import (
    HTML,
    INDEXES,
    MARKDOWN,
    MOST_FILES,
    File,
    NoFileError,
    read_text,
    walk,
)
from services.docs.settings import Section

log = logging.getLogger(__name__)

MOST_TEXT = 2 << 20  # bytes of a page that are read for the search
_FRESH = 2.0  # seconds for which a look at the folders is good
_SHARE = 20  # and at most this part of the time is spent with looking
_FOUND = 50
_NUMBER = re.compile(r"^\d+[-_. ]+")
# Letters that no text has mark what was found.
OPEN, CLOSE = "\x02", "\x03"


@dataclass(frozen=True)
class Entry:
    """A file as it is listed.

    Attributes
    ----------
    file : File
        The file.
    title : str
        As people read it.
    """

    file: File
    title: str


@dataclass
class Shelf:
    """One section, as it was at the last look.

    Attributes
    ----------
    section : Section
        Which.
    entries : dict of str to Entry
        What there is to read, by path.
    beside : dict of str to list of Entry
        The same, by folder.
    folders : dict of str to set of str
        The folders with something to read below them, and in each the folders there.
    there : bool
        Its folder is there.
    complete : bool
        False where it has too many files: some are left out.
    """

    section: Section
    entries: dict[str, Entry] = field(default_factory=dict)
    beside: dict[str, list[Entry]] = field(default_factory=dict)
    folders: dict[str, set[str]] = field(default_factory=lambda: {"": set()})
    there: bool = True
    complete: bool = True

    def index_of(self, folder: str) -> Entry | None:
        """Return the page that is a folder's own."""
        for name in INDEXES:
            entry = self.entries.get(f"{folder}/{name}" if folder else name)
            if entry is not None:
                return entry
        return None

    def title_of(self, folder: str) -> str:
        """Return a folder's title: its own page's, or one made of its name."""
        if not folder:
            return self.section.title
        index = self.index_of(folder)
        return index.title if index else _readable(PurePosixPath(folder).name)

    def inside(self, folder: str) -> tuple[list[str], list[Entry]]:
        """Return the folders in a folder, and what there is to read beside its own page."""
        index = self.index_of(folder)
        files = [entry for entry in self.beside.get(folder, ()) if entry is not index]
        below = sorted(self.folders.get(folder, ()), key=_order)
        return below, sorted(files, key=lambda entry: _order(entry.file.path))


@dataclass(frozen=True)
class Hit:
    """A page that has the words that were looked for.

    Attributes
    ----------
    section, path, title : str
        Which page.
    snippet : str
        Some of its words; those looked for stand between `OPEN` and `CLOSE`.
    """

    section: str
    path: str
    title: str
    snippet: str


class Library:
    """All sections; calls may take long and belong into a thread.

    Parameters
    ----------
    sections : callable
        Returns what is shown; called at each look at the folders.

    Raises
    ------
    LabkitError
        The administrator's settings are wrong. Later that is logged, and what was shown stays.
    """

    def __init__(self, sections: Callable[[], Sequence[Section]]) -> None:
        self._read = sections
        self._sections = tuple(sections())
        self._wrong = ""
        self._shelves: dict[str, Shelf] = {}
        self._titles: dict[tuple[str, str], tuple[tuple[int, int, int], str]] = {}
        self._lock = threading.Lock()
        self._next = 0.0
        # In memory: the folders are the truth, and reading them anew takes seconds.
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        # https://www.sqlite.org/fts5.html
        self._db.execute(
            "CREATE VIRTUAL TABLE pages USING fts5(section UNINDEXED, path UNINDEXED, title,"
            " headings, body, tokenize = 'porter unicode61 remove_diacritics 2', prefix = '2 3')"
        )
        self._db.execute("CREATE TABLE places (section, path, row, PRIMARY KEY (section, path))")

    def shelves(self) -> dict[str, Shelf]:
        """Return all sections by name, as their folders now are."""
        with self._lock:
            if time.monotonic() >= self._next:
                began = time.monotonic()
                self._take_settings()
                self._shelves = {one.name: self._look(one) for one in self._sections}
                took = time.monotonic() - began
                self._next = time.monotonic() + max(_FRESH, _SHARE * took)
            return self._shelves

    def _take_settings(self) -> None:
        try:
            self._sections, self._wrong = tuple(self._read()), ""
        except (LabkitError, OSError) as error:
            if str(error) != self._wrong:
                log.error("The settings are wrong, the former ones stay: %s", error)
            self._wrong = str(error)
        names = {section.name for section in self._sections}
        for name, path in [key for key in self._titles if key[0] not in names]:
            self._forget(name, path)

    def _look(self, section: Section) -> Shelf:
        shelf = Shelf(section, there=section.folder.is_dir())
        seen, count = set(), 0
        for file in walk(section.folder):
            count += 1
            if not file.is_listed:
                continue
            seen.add(file.path)
            entry = Entry(file, self._title(section, file))
            folder = _folder_of(file.path)
            shelf.entries[file.path] = entry
            shelf.beside.setdefault(folder, []).append(entry)
            while folder:
                above = _folder_of(folder)
                shelf.folders.setdefault(folder, set())
                shelf.folders.setdefault(above, set()).add(folder)
                folder = above
        shelf.complete = count < MOST_FILES
        for name, path in [key for key in self._titles if key[0] == section.name]:
            if path not in seen:
                self._forget(name, path)
        return shelf

    def _title(self, section: Section, file: File) -> str:
        """Return a file's title; one that is new or changed is read for the search."""
        key = (section.name, file.path)
        known = self._titles.get(key)
        if known is not None and known[0] == file.stamp:
            return known[1]
        self._forget(*key)
        page = _page(section, file)
        title = page.title or _readable(PurePosixPath(file.path).name)
        headings = "\n".join(one.text for one in page.headings)
        row = self._db.execute(
            "INSERT INTO pages VALUES (?, ?, ?, ?, ?)",
            (*key, f"{title}\n{file.path}", headings, page.text),
        ).lastrowid
        self._db.execute("INSERT INTO places VALUES (?, ?, ?)", (*key, row))
        self._titles[key] = (file.stamp, title)
        return title

    def _forget(self, section: str, path: str) -> None:
        if self._titles.pop((section, path), None) is None:
            return
        rows = "SELECT row FROM places WHERE section = ? AND path = ?"
        self._db.execute(f"DELETE FROM pages WHERE rowid = ({rows})", (section, path))  # noqa: S608
        self._db.execute("DELETE FROM places WHERE section = ? AND path = ?", (section, path))

    def search(self, words: str, sections: Iterable[str]) -> list[Hit]:
        """Return the pages that have all words, the best first.

        Parameters
        ----------
        words : str
            What is looked for; also beginnings of words, none of it is read as a command.
        sections : iterable of str
            Where; the caller knows who may read what.
        """
        named = list(sections)
        query = " ".join(f'"{word}"*' for word in re.findall(r"\w+", words)[:20])
        if not query or not named:
            return []
        shelves = self.shelves()
        places = ", ".join("?" * len(named))
        with self._lock:
            rows = self._db.execute(
                f"SELECT section, path, snippet(pages, 4, ?, ?, ' … ', 24) FROM pages"  # noqa: S608
                f" WHERE pages MATCH ? AND section IN ({places})"
                f" ORDER BY bm25(pages, 0, 0, 8, 4, 1) LIMIT {_FOUND}",
                (OPEN, CLOSE, query, *named),
            ).fetchall()
        return [
            Hit(section, path, shelves[section].entries[path].title, snippet)
            for section, path, snippet in rows
            if section in shelves and path in shelves[section].entries
        ]


def _page(section: Section, file: File) -> markdown.Page:
    text = ""
    if file.is_markdown or file.is_html or file.path.lower().endswith(".txt"):
        try:
            text = read_text(section.folder, file.path, MOST_TEXT)
        except (OSError, NoFileError) as error:
            log.warning("%s/%s cannot be read: %s", section.name, file.path, type(error).__name__)
    if file.is_markdown:
        return markdown.read(text)
    return markdown.read_html(text) if file.is_html else markdown.Page("", text=text)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _readable(name: str) -> str:
    """Return a title made of a file's name: ``01_pcr-setup.md`` is *Pcr setup*."""
    if "." in name and not name.lower().endswith((*MARKDOWN, *HTML)):
        return name
    stem = PurePosixPath(name).stem
    text = _NUMBER.sub("", stem).replace("_", " ").replace("-", " ").strip() or name
    return text[:1].upper() + text[1:]


def _order(path: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts as people count: 2 before 10."""
    name = path.rpartition("/")[2].casefold()
    return [
        (0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part
    ]
