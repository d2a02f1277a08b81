"""What people can say of a picture: Label Studio's labelling configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from labkit.base.problems import Problem, unknown_name

# our word -> Label Studio's tag for the tool, and for each label in it
TOOLS = {
    "choices": ("Choices", "Choice"),
    "rectangles": ("RectangleLabels", "Label"),
    "polygons": ("PolygonLabels", "Label"),
    "points": ("KeyPointLabels", "Label"),
    "brush": ("BrushLabels", "Label"),
}
# Okabe and Ito's colours, which people with any colour vision can tell apart
# (https://jfly.uni-koeln.de/color/).
_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
_LONGEST = 100


def check(labels: Sequence[str], tool: str) -> Iterator[Problem]:
    """Find what is wrong with labels and tool."""
    if tool not in TOOLS:
        yield unknown_name("tool", str(tool), TOOLS)
    if isinstance(labels, str) or not labels:
        yield Problem(
            "labels", "must be a list with at least one label.", 'E.g. ["alive", "dead"].'
        )
        return
    for label in labels:
        if not isinstance(label, str) or not label.strip() or len(label) > _LONGEST:
            text = f"{label!r} must be a text of 1 to {_LONGEST} characters."
            yield Problem("labels", text)
    twice = sorted({str(label) for label in labels if list(labels).count(label) > 1})
    if twice:
        yield Problem("labels", f"named twice: {', '.join(twice)}.")


def configuration(labels: Sequence[str], tool: str, *, several: bool = False) -> str:
    """Return Label Studio's configuration (XML).

    Parameters
    ----------
    labels : sequence of str
        What can be said.
    tool : str
        One of `TOOLS`.
    several : bool
        For ``choices``: more than one may be right.

    Notes
    -----
    Tags: https://labelstud.io/tags/
    """
    tag, entry = TOOLS[tool]
    view = ElementTree.Element("View")
    # Whole pictures fit the window; pixels stay pixels.
    attributes = {"name": "image", "value": "$image", "zoom": "true", "zoomControl": "true"}
    attributes |= {"brightnessControl": "true", "contrastControl": "true"}
    ElementTree.SubElement(view, "Image", {**attributes, "smoothing": "false"})
    extra = {"choice": "multiple" if several else "single", "showInline": "true"}
    named = {"name": "label", "toName": "image", **(extra if tool == "choices" else {})}
    control = ElementTree.SubElement(view, tag, named)
    for number, label in enumerate(labels):
        color = {} if tool == "choices" else {"background": _COLORS[number % len(_COLORS)]}
        ElementTree.SubElement(control, entry, {"value": label, **color})
    return ElementTree.tostring(view, encoding="unicode")


def read(text: str) -> tuple[str, list[str]]:
    """Return tool and labels of a configuration that `configuration` has made.

    Raises
    ------
    ValueError
        It is somebody else's.
    """
    by_tag = {tag: tool for tool, (tag, _) in TOOLS.items()}
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - the lab's own Label Studio
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    for control in root.iter():
        if control.tag in by_tag and control.get("name") == "label":
            return by_tag[control.tag], [str(entry.get("value")) for entry in control]
    raise ValueError("it has no labels of labkit's form")
