"""Markdown to HTML that is safe to show, and to words for the search."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from mdit_py_plugins.tasklists import tasklists_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_PREFIX = "hl-"
_LONGEST_CODE = 50_000  # characters that are coloured; more is shown plain
_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_BOX = re.compile(r'<input class="task-list-item-checkbox"([^>]*)>')
_ALIGNED = re.compile(r"text-align:\s*(left|right|center)")
# Classes that our style sheet knows; no document wears another one.
_CLASSES = re.compile(
    rf"{_PREFIX}[a-z0-9]+|code|to-(?:left|right|center)|box|admonition(?:-title)?"
    r"|footnotes(?:-list|-sep)?|footnote-(?:ref|item|backref)|contains-task-list|task-list-item"
    r"|note|info|tip|hint|success|question|warning|caution|danger|error|important|example"
)
_ALLOWED = {
    "*": {"class", "id", "title", "lang", "dir"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "ol": {"start"},
    "details": {"open"},
    "span": {"role", "aria-label"},
    "video": {"src", "controls", "width", "height", "poster"},
    "source": {"src", "type"},
}
_TAGS = set(nh3.ALLOWED_TAGS) | {"video", "source"}


@dataclass(frozen=True)
class Heading:
    """A heading of a page."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Page:
    """A page, ready to be shown and to be searched.

    Attributes
    ----------
    title : str
        Its own; may be empty.
    body : str
        Harmless HTML; empty for a page that is shown as it is.
    text : str
        Its words.
    headings : tuple of Heading
        Those below the title.
    titled : bool
        The body begins with the title itself.
    """

    title: str
    body: str = ""
    text: str = ""
    headings: tuple[Heading, ...] = field(default=())
    titled: bool = False


def style() -> str:
    """Return the style sheet of the code's colours, for light and for dark."""
    light, dark = (
        "\n".join(
            line
            for line in HtmlFormatter(style=name, classprefix=_PREFIX)
            .get_style_defs("pre.code")
            .splitlines()
            # The ground is the page's own.
            if line.startswith(f"pre.code .{_PREFIX}")
        )
        for name in ("xcode", "lightbulb")  # their contrast is enough on our grounds
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _colour(code: str, language: str, _: str) -> str:
    """Return a block of code with its words marked."""
    inner = html.escape(code)
    if language and len(code) <= _LONGEST_CODE:
        try:
            lexer = get_lexer_by_name(language, stripnl=False)
        except ClassNotFound:
            pass
        else:
            inner = highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix=_PREFIX))
    # What begins with <pre is taken as the whole block.
    return f'<pre class="code"><code>{inner}</code></pre>\n'


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": True, "highlight": _colour})
    parser.enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin).use(tasklists_plugin).use(admon_plugin)
    return parser.use(anchors_plugin, max_level=4)


_PARSER = _parser()


def render(source: str) -> Page:
    """Return a page of Markdown: CommonMark, tables, footnotes, task lists, ``!!! note``.

    Parameters
    ----------
    source : str
        The file's text.

    Returns
    -------
    Page
        Of HTML in the source only harmless tags and attributes are left: no script, style, form
        or frame, and no address but of the web, of mail, or relative.
    """
    tokens = _PARSER.parse(source)
    for token in _all(tokens):
        _mend(token)
    body = _PARSER.renderer.render(tokens, _PARSER.options, {})
    return replace(_read(tokens), body=clean(body))


def read(source: str) -> Page:
    """Return a page of Markdown without its HTML, for the search."""
    return _read(_PARSER.parse(source))


def _read(tokens: list[Token]) -> Page:
    headings = list(_headings(tokens))
    first = next((one for one in headings if one.level == 1), None)
    front = next((token.content for token in tokens if token.type == "front_matter"), "")
    named = _TITLE.search(front)
    visible = [token for token in tokens if token.type != "front_matter"]
    return Page(
        title=named[1].strip("\"'") if named else (first.text if first else ""),
        text="\n".join(_words(visible)),
        headings=tuple(one for one in headings if one.level in (2, 3) and one.text),
        titled=bool(visible) and visible[0].type == "heading_open" and visible[0].tag == "h1",
    )


def clean(text: str) -> str:
    """Return HTML with nothing in it that acts."""
    return nh3.clean(
        text,
        tags=_TAGS,
        attributes=_ALLOWED,
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto"},
        clean_content_tags={"script", "style"},
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        return " ".join(filter(_CLASSES.fullmatch, value.split())) or None
    if (tag, name) == ("span", "role"):
        return value if value == "img" else None
    return value


def _all(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or ())


def _mend(token: Token) -> None:
    """Say by classes and signs what would else be said by styles and form fields."""
    if token.type in ("th_open", "td_open"):
        aligned = _ALIGNED.search(str(token.attrs.pop("style", "")))
        if aligned:
            token.attrSet("class", f"to-{aligned[1]}")
    elif token.type == "html_inline":
        token.content = _BOX.sub(_box, token.content)


def _box(match: re.Match[str]) -> str:
    done = "checked" in match[1]
    label, sign = ("done", "☑") if done else ("to do", "☐")
    return f'<span class="box" role="img" aria-label="{label}">{sign}</span>'


def _headings(tokens: list[Token]) -> Iterator[Heading]:
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            text = "".join(_plain(tokens[number + 1])).strip()
            yield Heading(int(token.tag[1]), str(token.attrGet("id") or ""), text)


def _words(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type == "inline":
            yield "".join(_plain(token))
        elif token.type in ("fence", "code_block"):
            yield token.content


def _plain(token: Token) -> Iterator[str]:
    for child in token.children or ():
        if child.type in ("text", "code_inline"):
            yield child.content
        elif child.type in ("softbreak", "hardbreak"):
            yield " "
        elif child.type == "image":
            yield from _plain(child)


# -- pages that are HTML already --------------------------------------------------------------


class _Reader(HTMLParser):
    """Collects title and words of a page."""

    _SILENT = frozenset({"script", "style", "nav", "header", "footer", "template", "svg"})
    _BLOCKS = frozenset({"p", "div", "li", "tr", "td", "th", "br", "h1", "h2", "h3", "h4", "pre"})

    def __init__(self) -> None:
        super().__init__()
        self.title: list[str] = []
        self.words: list[str] = []
        self._silent: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base's
        if tag in self._SILENT:
            self._silent.append(tag)
        elif tag in self._BLOCKS:
            self.words.append("\n")
        self._in_title = tag == "title" and not self.title

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            # One that was never closed does not silence what follows.
            del self._silent[self._silent.index(tag) :]
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._silent:
            self.words.append(data)


def read_html(source: str) -> Page:
    """Return title and words of a page that is HTML already."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    title = " ".join("".join(reader.title).split())
    lines = (" ".join(line.split()) for line in "".join(reader.words).splitlines())
    return Page(title=title, text="\n".join(filter(None, lines)))
