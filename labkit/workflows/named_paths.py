"""The paths that a command names: what it may read, whether it was declared or not."""

from __future__ import annotations

import glob
import os
import re
import shlex
import string
from collections.abc import Iterable, Iterator
from itertools import islice

_BETWEEN = re.compile(r"""[=:,;|&<>()'"\s]""")
# Where a path may begin inside of a word: after one of these, an option's letters or an @.
_BEGIN = re.compile(rf"(?:^|(?<={_BETWEEN.pattern}))(?:-{{1,2}}\w+|@)?(?=[/~$])")
_ENDS = 32  # places looked at where a path may end: names hold spaces and commas
_WILD = re.compile(r"[*?\[]")
_NOT_FILES = ("/dev", "/proc", "/sys")


def existing(texts: Iterable[str], *, shell: bool) -> tuple[str, ...]:
    """Return the files and folders, by absolute path, that texts of a task name and that exist.

    A word that is a path, and paths inside of a word: ``--reference=/data/a.fa``,
    ``-I/data/include``, ``a:/data/b,/data/c``. Relative paths are left out: they count from the
    task's own folder, which is new. What is named too many does no harm but a run too many.

    Parameters
    ----------
    texts : iterable of str
        Arguments and values of variables, as :class:`string.Template` texts.
    shell : bool
        Whether a shell reads them: ``~``, ``$HOME`` and wildcards mean what they mean there.

    Returns
    -------
    tuple of str
        Each once, sorted.
    """
    candidates = {word for text in texts for word in _words(text, shell)}
    paths: set[str] = set()
    for word in candidates:
        names = [os.path.expanduser(os.path.expandvars(word))] if shell else [word]  # noqa: PTH111
        if shell and _WILD.search(names[0]):
            names += glob.glob(names[0]) if names[0].startswith("/") else []  # noqa: PTH207
        paths.update(name for name in names if _is_file(name))
    return tuple(sorted(paths))


def _words(text: str, shell: bool) -> Iterator[str]:
    if "/" not in text and "~" not in text:
        return
    filled = string.Template(text).safe_substitute()  # labkit's own placeholders stay
    words = [filled]
    if shell:
        try:
            words += shlex.split(filled)
        except ValueError:  # a quote in a comment or a here-document
            words += filled.split()
    for word in words:
        for begin in _BEGIN.finditer(word):
            start = begin.end()
            yield word[start:]
            ends = islice(_BETWEEN.finditer(word, start), _ENDS)
            yield from (word[start : end.start()] for end in ends)


def _is_file(path: str) -> bool:
    if not path.startswith("/") or "\0" in path:
        return False
    place = os.path.normpath(path)
    if place == "/" or place.startswith(tuple(f"{folder}/" for folder in _NOT_FILES)):
        return False
    try:
        return os.path.isfile(place) or os.path.isdir(place)  # noqa: PTH112, PTH113
    except (OSError, ValueError):
        return False
