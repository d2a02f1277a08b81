"""From data to a published version: check, convert, draw, send, wait for the service's checks."""

from __future__ import annotations

import base64
import hashlib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import storage
from labkit.base.problems import Problem, refuse
from labkit.base.units import format_duration, format_size
from labkit.portal.datasets import thumbnail
from labkit.portal.datasets.client import Client, PublishError
from labkit.portal.datasets.dataset import Published
from labkit.portal.datasets.rules import RULES
from labkit.portal.publishing.client import same_version
from labkit.viewers.cellxgene import copies
from labkit.viewers.cellxgene.clean import Cleaned, clean
from labkit.viewers.cellxgene.errors import DataRefusedError
from labkit.viewers.cellxgene.memory import BASE_BYTES
from labkit.viewers.cellxgene.source import Source, read_source
from labkit.viewers.cellxgene.unforeseen import explained

if TYPE_CHECKING:
    from collections.abc import Iterator

Progress = Callable[[str], None]
_PIECE = 4 << 20
_POLL = 0.5
_PACKAGES = ("anndata", "scanpy", "numpy", "pandas")
_TOLD = 2000  # changes that are kept with a version


@dataclass(frozen=True)
class _Wanted:
    """What was asked for, beside the data."""

    name: str
    groups: Sequence[str] | None
    texts: dict[str, str | None]
    color: str | None


def publish_data(
    data: Any,
    name: str,
    *,
    groups: Sequence[str] | None,
    title: str | None,
    description: str | None,
    organism: str | None,
    tissue: str | None,
    color: str | None,
    gene_names: str | None,
    timeout: float,
    progress: Progress,
) -> Published:
    """Do what ``labkit.publish`` says; see there for the parameters and errors."""
    texts = {"title": title, "description": description, "organism": organism, "tissue": tissue}
    wanted = _Wanted(name, groups, texts, color)
    refuse(RULES.check_request(name, {**texts, "groups": groups}))
    client = Client.from_environment()
    me = client.list_all()
    known = client.get_if_any(name)
    kept = known["groups"] if known else ()
    if groups is not None:
        refuse(RULES.check_groups(list(groups), me["groups"], admin=me["admin"], kept=kept))
    progress("Reading and checking the data …")
    called = "the data" if not isinstance(data, str | Path) else Path(data).name
    with _local(data, progress) as (place, kind):
        with explained(called, _less_memory):
            source = read_source(place)
            cleaned = clean(source, gene_names)
        if cleaned.problems or source.x is None:
            raise DataRefusedError(f"'{source.title}'", cleaned.problems)
        if color is not None and color not in cleaned.obs.columns:
            columns = ", ".join(map(str, cleaned.obs.columns)) or "no columns at all"
            refuse([Problem("color", f"obs has no column {color!r}.", f"It has: {columns}.")])
        return _publish(client, wanted, known, source, cleaned, kind, timeout, progress)


def _less_memory() -> str:
    return (
        "Next step: publish fewer genes, `adata[:, adata.var.highly_variable]`, or fewer cells; or "
        "take a server with more memory."
    )


@contextmanager
def _local(data: Any, progress: Progress) -> Iterator[tuple[Any, str]]:
    """Give the data as `read_source` takes it, and what kind of source it is."""
    if not isinstance(data, str | Path):
        yield data, "memory"
        return
    if not str(data).startswith("s3://"):
        yield data, "folder" if Path(data).suffix.lower() == ".zarr" else "file"
        return
    bucket, _, key = str(data).removeprefix("s3://").partition("/")
    if not bucket or not key.lower().endswith(".h5ad"):
        refuse([Problem("data", f"{data!r} is no address like s3://bucket/key.h5ad.")])
    with tempfile.TemporaryDirectory(prefix="labkit-publish-") as folder:
        path = Path(folder) / Path(key).name
        progress(f"Fetching {data} …")
        try:
            storage.copy(
                str(data),
                path,
                lambda now: progress(
                    f"Fetching {data}: {format_size(now.size_done)} of {format_size(now.size)}"
                ),
            )
        except storage.StorageError as error:
            refuse([Problem("data", str(error))])
        yield path, "s3"


def _publish(
    client: Client,
    wanted: _Wanted,
    known: dict[str, Any] | None,
    source: Source,
    cleaned: Cleaned,
    kind: str,
    timeout: float,
    progress: Progress,
) -> Published:
    with explained(source.title, _less_memory):
        identity = copies.identity(source, cleaned)
        file = copies.existing(identity)
        if file is None:
            progress("Writing a copy that CellxGene can read …")
            file = copies.write(source, cleaned, identity, ())
    progress("Computing the digest …")
    sha256 = _sha256(file)
    texts = {key: text for key, text in wanted.texts.items() if text is not None}
    same = same_version(known, sha256)
    if same is not None:
        progress(f"This data is version {same} already: nothing is sent.")
        fields: dict[str, Any] = {**texts, "current": same, "hidden": False}
        if wanted.groups is not None:
            fields["groups"] = list(wanted.groups)
        return Published(client, client.change(wanted.name, fields))
    if known is None:
        texts = _from_obs(cleaned) | {"title": wanted.name} | texts
    progress("Drawing the picture …")
    with explained(source.title, _less_memory):
        picture = thumbnail.draw(cleaned, wanted.color or thumbnail.choose_color(cleaned))
    size = file.stat().st_size
    announced = {
        **texts,
        "groups": None if wanted.groups is None else list(wanted.groups),
        "size": size,
        "sha256": sha256,
        "cells": source.obs.shape[0],
        "genes": source.var.shape[0],
        "need": _need(source),
        "source": _source(source, kind, identity),
        "software": _software(),
        "changes": [[one.where[:500], one.what[:500]] for one in cleaned.changes[:_TOLD]],
        "thumbnail": None if picture is None else base64.b64encode(picture).decode(),
    }
    upload = client.ask("POST", f"datasets/{wanted.name}/versions", announced)
    _send(client, upload["id"], file, size, timeout, progress)
    published = Published(client, client.get(wanted.name))
    progress(f"Published: {published.url}")
    return published


def _need(source: Source) -> int:
    if source.x is None:
        return 0
    return int(BASE_BYTES + copies.served_matrix(source.x).size + source.tables)


def _send(
    client: Client, upload: str, file: Path, size: int, timeout: float, progress: Progress
) -> None:
    spoken = [0.0]

    def tell(sent: int) -> None:
        if time.monotonic() - spoken[0] > 0.5 or sent == size:
            spoken[0] = time.monotonic()
            progress(
                f"Sending: {format_size(sent)} of {format_size(size)} ({100 * sent // size} %)"
            )

    place = f"uploads/{upload}"
    try:
        state = client.send(place, file, tell)
        end = time.monotonic() + timeout
        step = ""
        while state["state"] in ("waiting", "receiving", "checking"):
            if state["step"] != step:
                step = state["step"]
                progress(f"The service checks it: {step} …")
            if time.monotonic() > end:
                raise PublishError(
                    f"The service did not end its checks within {format_duration(timeout)} "
                    f"({step}). They go on: look with labkit.published()."
                )
            time.sleep(_POLL)
            state = client.ask("GET", place)
    except KeyboardInterrupt:
        client.ask("DELETE", place)  # stopped by hand: nothing is to be left there
        raise
    if state["state"] != "published":
        reasons = "\n".join(f"  {one}" for one in state["problems"])
        raise PublishError(f"The service refused it; nothing was changed:\n{reasons}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _source(source: Source, kind: str, identity: str) -> dict[str, str]:
    """Say what the version was made from."""
    backing = source.path
    if source.adata is not None and source.adata.isbacked and not source.adata.is_view:
        backing = Path(str(source.adata.filename))
        kind = "file"
    if backing is not None and backing.is_file():
        digest = f"sha256:{_sha256(backing)}"
        return {"kind": kind, "name": backing.name[:255], "digest": digest}
    name = source.title if kind == "folder" else ""
    return {"kind": kind, "name": name[:255], "digest": f"blake2b:{identity}"}


def _software() -> dict[str, str]:
    from labkit import __version__

    versions = {"labkit": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _from_obs(cleaned: Cleaned) -> dict[str, str]:
    """Return organism and tissue where columns of these names have a few values."""
    found = {}
    for field in ("organism", "tissue"):
        if field in cleaned.obs.columns:
            values = sorted({str(one) for one in cleaned.obs[field].dropna().unique()})
            if 0 < len(values) <= 4 and sum(map(len, values)) <= 80:
                found[field] = ", ".join(values)
    return found
