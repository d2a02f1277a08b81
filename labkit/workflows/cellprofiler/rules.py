r"""CellProfiler's file rules: ``and (file does contain "w1") (extension does isimage)``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

Rule = Callable[[PurePosixPath], bool]

IMAGES_ONLY = r'and (extension does isimage) (directory doesnot containregexp "[\\\\/]\\.")'

_TIFF = {"tif", "tiff", "flex", "stk"}
_IMAGE = _TIFF | {
    *("png", "jpg", "jpeg", "jpe", "bmp", "gif", "ppm", "pgm", "pbm", "c01", "dib", "zvi", "lif"),
    *("lsm", "nd2", "oib", "oif", "czi", "vsi", "ims", "mrc", "dcm", "h5"),
    *("avi", "mov", "mpeg", "mpg", "mp4"),
}
# CellProfiler reads these too, but "isimage" asks Bio-Formats, which does not know them.
_ARRAYS = {"npy", "npz", "mat"}
_EXTENSIONS = {
    "isimage": _IMAGE,
    "istif": _TIFF,
    "isjpeg": {"jpg", "jpeg", "jpe"},
    "ispng": {"png"},
    "isflex": {"flex"},
    "ismovie": {"avi", "mov", "mpeg", "mpg", "mp4", "stk", "flex", "tif", "tiff", "zvi"},
}
_TOKEN = re.compile(r'\s*(?:(\()|(\))|"((?:\\.|[^"\\])*)"|((?:\\.|[^\s()"])+))')


class RuleError(ValueError):
    """The rule uses something that labkit does not know."""


def is_image(name: str) -> bool:
    """Return whether a file's name ends like that of an image that CellProfiler reads."""
    return PurePosixPath(name).suffix[1:].lower() in _IMAGE | _ARRAYS


def parse(text: str) -> Rule:
    """Turn the text of a rule into a function of a path.

    Raises
    ------
    RuleError
        If it asks for what cannot be told from the name, such as an image's colour.
    """
    tokens = [_token(match) for match in _TOKEN.finditer(text) if match[0].strip()]
    rule, rest = _expression(tokens)
    if rest:
        raise RuleError(f"the rule {text!r} is not understood")
    return rule


def _token(match: re.Match[str]) -> tuple[str, str]:
    if match[1] or match[2]:
        return ("mark", match[0].strip())
    if match[3] is not None:
        return ("text", re.sub(r"\\(.)", r"\1", match[3]))
    return ("word", re.sub(r"\\(.)", r"\1", match[4]))


Tokens = list[tuple[str, str]]


def _expression(tokens: Tokens) -> tuple[Rule, Tokens]:
    if not tokens:
        raise RuleError("the rule is empty")
    kind, word = tokens[0]
    if kind == "word" and word in ("and", "or"):
        parts, rest = [], tokens[1:]
        while rest and rest[0] == ("mark", "("):
            part, rest = _expression(rest[1:])
            if not rest or rest[0] != ("mark", ")"):
                raise RuleError("a bracket is not closed")
            parts.append(part)
            rest = rest[1:]
        combine = all if word == "and" else any
        return (lambda path: combine(part(path) for part in parts)), rest
    return _predicate(tokens)


def _predicate(tokens: Tokens) -> tuple[Rule, Tokens]:
    words = [word for kind, word in tokens[:3] if kind == "word"]
    if len(words) < 3 or words[1] not in ("does", "doesnot"):
        raise RuleError(f"the rule {' '.join(word for _, word in tokens)!r} is not understood")
    subject, does, verb = words
    rest = tokens[3:]
    if subject == "extension" and verb in _EXTENSIONS:
        wanted = _EXTENSIONS[verb]
        test: Rule = lambda path: path.suffix[1:].lower() in wanted  # noqa: E731

    elif subject in ("file", "directory", "extension") and rest and rest[0][0] == "text":
        test = _compare(subject, verb, rest[0][1])
        rest = rest[1:]
    else:
        raise RuleError(f"the rule '{subject} {does} {verb}' cannot be told from a file's name")
    return (test if does == "does" else lambda path: not test(path)), rest


def _compare(subject: str, verb: str, literal: str) -> Rule:
    def part(path: PurePosixPath) -> str:
        if subject == "file":
            return path.name
        return str(path.parent) if subject == "directory" else path.suffix[1:]

    if verb == "containregexp":
        try:
            pattern = re.compile(literal)
        except re.error as error:
            raise RuleError(f"the regular expression {literal!r} is wrong: {error}") from error
        return lambda path: pattern.search(part(path)) is not None
    tests: dict[str, Callable[[str], bool]] = {
        "contain": lambda value: literal in value,
        "startwith": lambda value: value.startswith(literal),
        "endwith": lambda value: value.endswith(literal),
        "eq": lambda value: value == literal,
    }
    if verb not in tests:
        raise RuleError(f"the comparison {verb!r} is not known")
    compare = tests[verb]
    return lambda path: compare(part(path))
