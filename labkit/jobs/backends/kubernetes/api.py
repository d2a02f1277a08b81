"""Calls of the Kubernetes API by kr8s, told in our words."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from labkit.jobs.backends.base import BackendError, SubmitRefusedError

_PAGE = 500  # objects of one answer
_FORBIDDEN = 403
_NOT_FOUND = 404
_CONFLICT = 409
_REFUSED = frozenset({400, _FORBIDDEN, _NOT_FOUND, 413, 422})
JOBS = ("batch/v1", "jobs")
PODS = ("v1", "pods")


class ConflictError(BackendError):
    """An object of that name is there already."""


class GoneError(BackendError):
    """There is no object of that name."""


@contextmanager
def _asking() -> Iterator[None]:
    import httpx
    import kr8s

    try:
        yield
    except kr8s.ServerError as error:
        code = error.response.status_code if error.response is not None else 0
        text = f"Kubernetes says: {error}"
        if code == _CONFLICT:
            raise ConflictError(text) from error
        if code == _NOT_FOUND:
            raise GoneError(text) from error
        if code in _REFUSED:
            raise SubmitRefusedError(text) from error
        raise BackendError(text) from error
    except (kr8s.APITimeoutError, kr8s.ConnectionClosedError, httpx.HTTPError, OSError) as error:
        what = str(error) or type(error).__name__
        raise BackendError(f"Kubernetes does not answer: {what}") from error
    except ValueError as error:  # of kr8s: no kubeconfig, or none that it can use
        raise BackendError(
            f"Kubernetes cannot be reached: {error}. The kubeconfig is the file that $KUBECONFIG "
            "names, else ~/.kube/config."
        ) from error


@lru_cache(1)
def _loop() -> asyncio.AbstractEventLoop:
    """Return an event loop in a thread of its own: kr8s is asynchronous, and a kernel has one."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="labkit-kubernetes").start()
    return loop


def _run(what: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(what, _loop()).result()


class Api:
    """One namespace of the cluster that kubeconfig names, or that this pod is in.

    Parameters
    ----------
    namespace : str
        Empty: the one that kubeconfig names.
    context : str
        Of kubeconfig; empty: the current one.
    kubeconfig : str
        Its path; empty: ~/.kube/config.
    """

    def __init__(self, namespace: str, context: str, kubeconfig: str) -> None:
        import yaml  # type: ignore[import-untyped]
        from kr8s.asyncio import api

        try:
            with _asking():
                self._api = _run(api(kubeconfig=kubeconfig or None, context=context or None))
        except (KeyError, TypeError, yaml.YAMLError) as error:
            raise BackendError(
                f"The kubeconfig cannot be used ({type(error).__name__}: {error}). It is the file "
                "that $KUBECONFIG names, else ~/.kube/config."
            ) from error
        with _asking():
            self.namespace = namespace or self._api.namespace

    def call(
        self,
        method: str,
        kind: tuple[str, str],
        name: str = "",
        body: Mapping[str, Any] | None = None,
        **params: str,
    ) -> dict[str, Any]:
        """Call the API once.

        Raises
        ------
        SubmitRefusedError
            It said no.
        ConflictError, GoneError
            The name is taken; there is nothing of that name.
        BackendError
            Nobody knows what it did.
        """
        version, plural = kind
        patch = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = {
            "version": version,
            "namespace": self.namespace,
            "url": f"{plural}/{name}" if name else plural,
            "params": params or None,
            "content": json.dumps(body) if body is not None else None,
            "headers": {"Content-Type": patch},
        }

        async def ask() -> dict[str, Any]:
            async with self._api.call_api(method, **request) as answer:
                result: dict[str, Any] = answer.json()
                return result

        with _asking():
            answered: dict[str, Any] = _run(ask())
            return answered

    def list(self, kind: tuple[str, str], **params: str) -> list[dict[str, Any]]:
        """Return all objects of a kind that the parameters choose."""
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            more = {"continue": token} if token else {}
            answer = self.call("GET", kind, "", None, limit=str(_PAGE), **params, **more)
            items += answer["items"]
            token = answer["metadata"].get("continue", "")
            if not token:
                return items


@lru_cache(8)
def connect(namespace: str, context: str, kubeconfig: str) -> Api:
    """Return the API of a namespace (see :class:`Api`); the connection is kept."""
    return Api(namespace, context, kubeconfig)
