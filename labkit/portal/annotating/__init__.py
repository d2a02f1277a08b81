"""Annotate pictures in Label Studio and get what people said back as a table."""

# No `from __future__ import annotations`: its name would take the function's place.
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from labkit.portal.annotating.project import Project

__all__ = ["annotate", "annotations"]


def annotate(
    images: Any,
    labels: Sequence[str],
    *,
    project: str,
    tool: str = "choices",
    several: bool = False,
    progress: Callable[[str], None] | None = None,
) -> "Project":
    """Make a project in Label Studio in which the lab's people annotate pictures.

    Called again under the same name it adds the pictures that the project does not have yet.
    Pictures of microscopes (TIFF, 16 bit) are shown with their contrast stretched; your files
    are never changed.

    Parameters
    ----------
    images : str, Path, sequence of these, pandas.DataFrame or CellProfiler job
        A folder, files, a table with the column ``image`` (other columns, such as well, come
        back with the annotations), or a finished job, whose saved images are taken.
    labels : sequence of str
        What can be said, e.g. ``["alive", "dead"]``.
    project : str
        Name of the project, 3 to 50 characters.
    tool : {"choices", "rectangles", "polygons", "points", "brush"}
        How it is said: of the whole picture, or by marking places in it.
    several : bool, default False
        For choices: more than one label may be right.
    progress : callable, optional
        Called with one line of text per step; default shows them in the notebook.

    Returns
    -------
    Project
        Shows its link; ``annotations()``, ``masks()`` and ``refresh()``.

    Raises
    ------
    RefusedError
        Pictures are missing, labels or names are not allowed, or the project has other labels;
        names all that is wrong.
    AnnotationError
        Label Studio refused it or cannot be reached.

    Examples
    --------
    >>> labkit.annotate("plate1/", ["round", "long"], project="Shapes")  # doctest: +SKIP
    """
    from labkit.portal.annotating.client import Client
    from labkit.portal.annotating.project import make
    from labkit.viewers.progress import shown

    with shown(progress) as say:
        return make(
            Client.from_environment(),
            images,
            labels,
            name=project,
            tool=tool,
            several=several,
            say=say,
        )


def annotations(project: str) -> "pd.DataFrame":
    """Return what was said in a project, one row for each label of each annotation.

    Parameters
    ----------
    project : str
        Its name.

    Returns
    -------
    pandas.DataFrame
        ``file``, ``label``, ``kind``; ``x``, ``y``, ``width``, ``height`` (pixels from the upper
        left corner), ``rotation`` (degrees) and ``points`` where the kind has them; ``annotator``,
        ``created`` (UTC), ``seconds``; then the columns that the pictures were given with.

    Raises
    ------
    AnnotationError
        There is no such project, or Label Studio cannot be reached.
    """
    from labkit.portal.annotating.client import Client
    from labkit.portal.annotating.project import find

    return find(Client.from_environment(), project).annotations()
