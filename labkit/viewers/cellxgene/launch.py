"""From data to a running CellxGene: check, convert, make sure of the memory, start, wait."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.base.ports import BLOCKED
from labkit.base.units import format_size
from labkit.viewers import paths
from labkit.viewers.cellxgene import copies, labels, memory, process, values
from labkit.viewers.cellxgene.card import Card, link
from labkit.viewers.cellxgene.clean import Cleaned, clean
from labkit.viewers.cellxgene.errors import (
    CellxGeneError,
    DataRefusedError,
    NotEnoughMemoryError,
    PortTakenError,
)
from labkit.viewers.cellxgene.process import Progress
from labkit.viewers.cellxgene.source import Matrix, Source, read_source
from labkit.viewers.cellxgene.unforeseen import explained

# Above this share of what is left, the user is told before it gets tight.
_TIGHT = 0.8
_STARTS = 5  # where other programs take one port after the other


@dataclass(frozen=True)
class _Plan:
    """What will be served and what it needs."""

    need: int
    converts: bool
    most_compared: int | None
    notes: list[str]


def open_cellxgene(
    data: Any,
    port: int,
    *,
    title: str | None,
    gene_names: str | None,
    annotations: bool | str | Path,
    force: bool,
    timeout: float,
    progress: Progress,
) -> Card:
    """Do what ``labkit.cellxgene`` says; see there for the parameters and errors."""
    _check_arguments(data, port, title, timeout)
    python = paths.program("cellxgene", "python")
    progress("Reading and checking the data …")
    with explained(title or "the data", _less_memory):
        source = read_source(data)
    source.title = title or source.title
    with explained(source.title, _less_memory):
        cleaned = clean(source, gene_names)
        if cleaned.problems or source.x is None:
            raise DataRefusedError(f"'{source.title}'", cleaned.problems)
        content = copies.identity(source, cleaned)
    way = f"{source.title}|{annotations}"
    key = f"{content}-{hashlib.blake2b(way.encode(), digest_size=4).hexdigest()}"
    found = process.find(key)
    if found is not None:
        process.wait_until_ready(found, timeout, progress)
        progress(f"Already open on port {found.port}.")
        return Card(found, reused=True)

    lineage = _lineage(source, cleaned, annotations)
    older = [one for one in process.running() if (one.lineage, one.port) == (lineage, port)]
    for one in older:
        progress(f"Port {port} shows an earlier state of this data: it is replaced.")
        process.stop(one)

    plan = _plan(source, source.x, cleaned, copies.existing(content), force)
    with explained(source.title, _less_memory):
        if source.x.dtype.kind == "f" and (note := source.look_at_x(values.note)):
            plan.notes.append(note)
        served = _served(source, cleaned, content, plan, progress)
    running = process.running()
    config, folder, notes = _configure(source, cleaned, served, annotations, plan, running)

    def record(pid: int, created: float, chosen: int) -> process.Record:
        moved = [f"Port {port} was busy, so it is on {chosen}."] if chosen != port else []
        return process.Record(
            pid=pid,
            created=created,
            port=chosen,
            key=key,
            lineage=lineage,
            title=source.title,
            shape=(source.obs.shape[0], source.var.shape[0]),
            served=str(served),
            labels=folder,
            memory=plan.need,
            changes=[[change.where, change.what] for change in cleaned.changes],
            notes=[*moved, *notes],
        )

    lost: list[int] = []
    while True:
        started = process.start(
            port=port,
            python=python,
            config=lambda chosen: _with_port(config, chosen),
            record=record,
            cookie_path=lambda chosen: link(chosen) if link(chosen).startswith("/") else "/",
            lost=lost,
        )
        if started.port != port:
            progress(f"Port {port} is busy; CellxGene starts on port {started.port}.")
        progress("CellxGene is loading the data …")
        try:
            process.wait_until_ready(started, timeout, progress)
        except PortTakenError:
            lost.append(started.port)
            if len(lost) == _STARTS:
                raise
            progress(f"Another program took port {started.port} meanwhile: the next one is tried.")
            continue
        progress(f"Ready: {link(started.port)}")
        return Card(started)


def _lineage(source: Source, cleaned: Cleaned, annotations: bool | str | Path) -> str:
    """Name what stays the same while the user goes on working on the data."""
    digest = hashlib.blake2b(f"{source.path}|{source.title}|{annotations}".encode(), digest_size=8)
    digest.update("\n".join(cleaned.obs.index).encode())
    return digest.hexdigest()


def _check_arguments(data: Any, port: Any, title: Any, timeout: Any) -> None:
    import anndata

    wrong = []
    if not isinstance(data, anndata.AnnData | str | Path):
        wrong.append(
            f"data: an AnnData or a path to .h5ad or .zarr is needed, not {type(data).__name__}"
        )
    if isinstance(port, bool) or not isinstance(port, int) or not 1024 <= port <= 65535:
        wrong.append(f"port: a whole number from 1024 to 65535 is needed, not {port!r}")
    elif port in BLOCKED:
        wrong.append(f"port: browsers refuse to open {port}; choose another")
    if title is not None and not (isinstance(title, str) and title.strip() and len(title) <= 200):
        wrong.append("title: a text of 1 to 200 characters is needed")
    if not isinstance(timeout, int | float) or timeout <= 0:
        wrong.append(f"timeout: a positive number of seconds is needed, not {timeout!r}")
    if wrong:
        raise ValueError("labkit.cellxgene:\n" + "\n".join(f"  {one}" for one in wrong))


def _plan(source: Source, x: Matrix, cleaned: Cleaned, copy: Path | None, force: bool) -> _Plan:
    """Choose between the file as it is and a copy, by need and by memory."""
    left = memory.available()
    as_copy = memory.BASE_BYTES + copies.served_matrix(x).size + source.tables
    converting = 0 if copy is not None else copies.conversion_bytes(source)
    converts = source.path is None or bool(cleaned.changes)
    need = max(as_copy, converting)
    if not converts:
        small = x.dtype.itemsize < 4  # CellxGene widens it and holds both
        extra = x.size_as(4) if small else 0
        as_is = memory.BASE_BYTES + x.size + extra + source.tables + source.beside
        # Layers, raw and float64 cost memory and show nothing: leave them out where it is tight.
        converts = as_is > _TIGHT * left.size and need < as_is
        need = need if converts else as_is
    notes = []
    message = (
        f"'{source.title}' needs about {format_size(need)} of memory "
        f"({x.shape[0]:,} cells × {x.shape[1]:,} genes, {_kind(x)}); "
        f"{format_size(left.size)} are left ({left.limit_by})."
    )
    if need > left.size:
        if not force:
            raise NotEnoughMemoryError(f"{message}\n{_less_memory()}")
        notes.append(f"{message} Opened all the same, as you asked (force=True).")
    elif need > _TIGHT * left.size:
        notes.append(f"Memory is tight: {message}")
    spare = max(0, left.size - need)
    most = int(spare / (x.shape[1] * memory.COMPARE_BYTES))
    limit = most if most < x.shape[0] else None
    if limit is not None:
        notes.append(
            f"Comparing groups of cells is limited to {limit:,} cells at once: more would need "
            "more memory than there is."
        )
    return _Plan(need, converts, limit, notes)


def _kind(x: Matrix) -> str:
    if x.layout == "dense":
        return f"dense {x.dtype}"
    return f"sparse {x.dtype}, {x.stored:,} values"


def _less_memory() -> str:
    lines = [
        "Next step, one of:",
        "  - show fewer genes: labkit.cellxgene(adata[:, adata.var.highly_variable])",
        "  - show fewer cells: sc.pp.sample(adata, n=50_000)",
        "  - delete objects you no longer need (`del adata`), or restart other kernels",
        "  - take a server with more memory",
        "  - labkit.cellxgene(..., force=True) opens it all the same; it may be killed",
    ]
    open_now = [one for one in process.running() if one.process is not None]
    if open_now:
        titles = ", ".join(f"{one.title} (port {one.port})" for one in open_now)
        lines.insert(1, f"  - stop viewers that are open: {titles}: labkit.cellxgene.stop_all()")
    return "\n".join(lines)


def _served(
    source: Source, cleaned: Cleaned, content: str, plan: _Plan, progress: Progress
) -> Path:
    """Return the file that CellxGene will read; written first where it must be."""
    if not plan.converts and source.path is not None:
        return source.path
    copy = copies.existing(content)
    if copy is not None:
        progress("The copy made earlier is used again.")
        return copy
    progress("Writing a copy that CellxGene can read …")
    in_use = {Path(one.served) for one in process.running()}
    return copies.write(source, cleaned, content, in_use)


def _configure(
    source: Source,
    cleaned: Cleaned,
    served: Path,
    annotations: bool | str | Path,
    plan: _Plan,
    running: list[process.Record],
) -> tuple[dict[str, Any], str, list[str]]:
    """Return CellxGene's configuration (without the port), the labels' folder and the notes."""
    notes = [*plan.notes, *cleaned.hints]
    wanted = annotations is not False and cleaned.annotatable
    base = None if isinstance(annotations, bool) else Path(annotations).expanduser().resolve()
    files: dict[str, str] = {}
    folder = ""
    if wanted:
        taken = {Path(one.labels) for one in running if one.labels}
        shown = cleaned.obs.index
        place = labels.folder_for(source.title, shown, base, taken)
        try:
            files, more = labels.prepare(
                place, set(cleaned.obs.columns), source.obs.index.astype(str), shown
            )
        except OSError as error:
            raise CellxGeneError(
                f"The folder for your labels cannot be used: {error}\n"
                "Next step: choose another one, annotations='my-folder', or none, "
                "annotations=False."
            ) from error
        notes += more
        folder = str(place)
    config: dict[str, Any] = {
        "server": {
            "app": {"verbose": True, "open_browser": False},
            "single_dataset": {"datapath": str(served), "title": source.title},
            "limits": {"diffexp_cellcount_max": plan.most_compared},
        },
        "dataset": {
            "user_annotations": {
                "enable": wanted,
                "local_file_csv": files,
                "gene_sets": {"readonly": not wanted},
            },
        },
    }
    return config, folder, notes


def _with_port(config: dict[str, Any], port: int) -> dict[str, Any]:
    app = {**config["server"]["app"], "host": process.host(port), "port": port}
    server = {**config["server"], "app": app}
    return {**config, "server": server}
