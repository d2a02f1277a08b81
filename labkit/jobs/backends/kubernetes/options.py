"""What a submit to Kubernetes can say, and what the lab says for everybody."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from labkit.base.problems import Problem

HELP: Mapping[str, str] = {
    "namespace": "namespace; default: $LABKIT_KUBERNETES_NAMESPACE, else kubeconfig's",
    "context": "context of kubeconfig; default: the current one",
    "images": "environment -> image address; default: $LABKIT_KUBERNETES_IMAGES, as JSON",
    "volumes": "folder -> what pods have there: 'claim:NAME', 'claim:NAME/FOLDER' or 'host:/PATH'; "
    "the run folder must be in one of them; default: $LABKIT_KUBERNETES_VOLUMES, as JSON",
    "node_selector": "labels that nodes must have, e.g. {'lab/pool': 'spot'}",
    "priority": "priority class of the pods",
    "service_account": "account that may get and patch jobs: later stages then begin by "
    "themselves; default: $LABKIT_KUBERNETES_SERVICE_ACCOUNT, else when somebody looks at the job",
}
_DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_CONTEXT = re.compile(r"[\w.:@/-]{1,253}", re.ASCII)
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII)
_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_VOLUME = re.compile(r"claim:[a-z0-9][a-z0-9.-]{0,252}(/[^\x00-\x1f]*)?|host:/[^\x00-\x1f]*")


@dataclass(frozen=True)
class Options:
    """The options of one submission; empty texts are not given.

    Attributes
    ----------
    images : mapping of str to str
        Environment -> image.
    volumes : mapping of str to str
        Folder -> what is mounted there.
    """

    namespace: str = ""
    context: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    priority: str = ""
    service_account: str = ""


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a submission's options with what the environment says."""
    known = {
        name: os.environ.get(f"LABKIT_KUBERNETES_{name.upper()}")
        for name in ("namespace", "images", "volumes", "service_account")
    }
    given = {name: value for name, value in options.items() if value is not None}
    return {**{name: value for name, value in known.items() if value}, **given}


def read(options: Mapping[str, Any]) -> tuple[Options | None, list[Problem]]:
    """Return the options as they are meant, and what is wrong with them.

    Returns
    -------
    tuple
        None where something is wrong.
    """
    chosen = complete(options)
    problems: list[Problem] = []
    names = {"namespace": _DNS, "context": _CONTEXT, "priority": _DNS, "service_account": _DNS}
    for name, pattern in names.items():
        value = chosen.get(name, "")
        if value and not (isinstance(value, str) and pattern.fullmatch(value)):
            problems.append(Problem(f"kubernetes_{name}", f"{value!r} is no name of one."))
    tables = {
        "images": (_LABEL, _IMAGE, "{'alignment': 'registry/alignment@sha256:…'}"),
        "volumes": (re.compile(r"/[^\x00-\x1f]+"), _VOLUME, "{'/shared': 'claim:lab-shared'}"),
        "node_selector": (_LABEL, _VALUE, "{'lab/pool': 'spot'}"),
    }
    for name, (keys, values, example) in tables.items():
        chosen[name] = table = _table(chosen.get(name, {}))
        if table is None or not all(
            isinstance(value, str) and keys.fullmatch(key) and values.fullmatch(value)
            for key, value in table.items()
        ):
            text = "cannot be used as it is."
            problems.append(Problem(f"kubernetes_{name}", text, f"Write it like {example}."))
    places = [*(chosen["volumes"] or {}), *(chosen["volumes"] or {}).values()]
    if any(".." in PurePosixPath(place).parts for place in places):
        problems.append(Problem("kubernetes_volumes", "a path may not go up ('..')."))
    return (None if problems else Options(**chosen)), problems


def _table(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return None
    return dict(value)
