"""What ``labkit`` and the pages' scripts ask: JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from labkit.base.problems import Problem
from labkit.portal import wire
from labkit.portal.datasets.rules import RULES
from services.appkit.identity import own_origin
from services.appkit.published.statements import RefusedPublishError, parse
from services.cellxgene.datasets import asked_for
from services.cellxgene.keys import CATALOGUE, POOL, UPLOADS, person, prefix
from services.cellxgene.records import Dataset, described
from services.cellxgene.request import Announcement, Change
from services.cellxgene.uploads import Upload
from services.cellxgene.uploads import described as upload_described


def refusal(problems: Iterable[Problem], status: int = 422) -> web.Response:
    """Return an answer that names all problems."""
    return web.json_response(wire.refusal(problems), status=status)


async def _fields(request: web.Request) -> dict[str, Any]:
    # A page of another origin can send no JSON without asking first.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="JSON is needed.")
    try:
        fields = json.loads(await request.read())
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise web.HTTPBadRequest(text="A JSON object is needed.")
    return fields


def _dataset(request: web.Request) -> Dataset:
    name = request.match_info["name"]
    dataset = request.app[CATALOGUE].get(person(request), name)
    if dataset is None:
        raise web.HTTPNotFound(text=f"There is no dataset '{name}' that you may see.")
    return dataset


def _base(request: web.Request) -> str:
    return own_origin(request) + prefix(request)


def _answer(request: web.Request, dataset: Dataset) -> web.Response:
    about = described(dataset, person(request), _base(request))
    return web.json_response({**about, "versions": dataset.described_versions()})


async def listing(request: web.Request) -> web.Response:
    """Answer with who asks, and the datasets that they may open."""
    who = person(request)
    datasets = request.app[CATALOGUE].visible(who)
    base = _base(request)
    return web.json_response(
        {
            "user": who.name,
            "groups": sorted(who.groups),
            "admin": who.admin,
            "datasets": [described(one, who, base) for one in datasets],
        }
    )


async def one(request: web.Request) -> web.Response:
    """Answer with one dataset and its versions."""
    return _answer(request, _dataset(request))


async def change(request: web.Request) -> web.Response:
    """Change title, groups, the version that is shown, or whether it is shown."""
    fields = await _fields(request)
    dataset = _dataset(request)
    try:
        wanted = parse(Change, fields, RULES)
        changed = await request.app[CATALOGUE].alter(person(request), dataset.name, wanted)
    except RefusedPublishError as error:
        return refusal(error.problems)
    except KeyError:
        raise web.HTTPForbidden(text=dataset.not_yours()) from None
    if changed.hidden:
        await request.app[POOL].stop(changed.name)
    return _answer(request, changed)


async def remove(request: web.Request) -> web.Response:
    """Remove a dataset with all its versions."""
    dataset = _dataset(request)
    try:
        await request.app[CATALOGUE].delete(person(request), dataset.name)
    except KeyError:
        raise web.HTTPForbidden(text=dataset.not_yours()) from None
    await request.app[POOL].stop(dataset.name)
    return web.Response(status=204)


async def announce(request: web.Request) -> web.Response:
    """Announce a version; the answer says where to send its file."""
    name = request.match_info["name"]
    fields = await _fields(request)
    try:
        announced = parse(Announcement, fields, RULES)
    except RefusedPublishError as error:
        return refusal(error.problems)
    try:
        upload = request.app[UPLOADS].begin(person(request), name, announced)
    except RefusedPublishError as error:
        return refusal(error.problems, 409)
    return web.json_response(upload_described(upload), status=201)


def _upload(request: web.Request) -> Upload:
    upload = request.app[UPLOADS].get(person(request), request.match_info["id"])
    if upload is None:
        raise web.HTTPNotFound(text="There is no such upload of yours.")
    return upload


async def receive(request: web.Request) -> web.Response:
    """Take the file in; the checks go on after the answer."""
    upload = _upload(request)
    length = request.content_length
    if length is not None and length != upload.announced.size:
        return refusal([Problem("file", f"{upload.announced.size} bytes were announced.")], 400)
    try:
        await request.app[UPLOADS].receive(person(request), upload, request.content.iter_any())
    except RefusedPublishError as error:
        return refusal(error.problems)
    return web.json_response(upload_described(upload), status=202)


async def progress(request: web.Request) -> web.Response:
    """Answer with how an upload goes."""
    return web.json_response(upload_described(_upload(request)))


async def cancel(request: web.Request) -> web.Response:
    """Give an upload up."""
    await request.app[UPLOADS].cancel(_upload(request))
    return web.Response(status=204)


async def state(request: web.Request) -> web.Response:
    """Answer with how the start of a dataset's CellxGene goes; nothing is started by it."""
    key, shown = asked_for(request)
    pool = request.app[POOL]
    viewer = pool.get(key)
    if pool.can_open(key):
        return web.json_response({"state": "ready", "step": "Ready"})
    if viewer is None:
        return web.json_response({"state": "stopped", "step": ""})
    return web.json_response(
        {"state": viewer.state, "step": viewer.step, "error": viewer.error, "cells": shown.cells}
    )


async def again(request: web.Request) -> web.Response:
    """Start a dataset's CellxGene again after it has failed too often."""
    key, shown = asked_for(request)
    request.app[POOL].forgive(key)
    request.app[POOL].want(key, shown)
    return web.Response(status=202)
