"""A database that is busy is 503 with Retry-After: not 500, and no refusal.

JupyterHub takes a person whom it cannot look up for one who is not logged in: scripts got 403, and
browsers were sent to the login page.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from tornado import web

from hub.state.database import is_busy

RETRY_AFTER = 5  # seconds
_ERROR = "_labhub_database_error"


class DatabaseBusyError(web.HTTPError):  # type: ignore[misc]
    """The hub's database cannot be read or written at the moment."""

    def __init__(self) -> None:
        super().__init__(503, "the hub's database is busy")
        self.jupyterhub_message = "The portal's database is busy. Try again in a few seconds."
        self.headers = {"Retry-After": str(RETRY_AFTER)}


def install() -> None:
    """Let every handler of this hub answer so, JupyterHub's own as well as ours."""
    _wrap("get_current_user", _remembering)
    _wrap("prepare", _refusing)
    _wrap("_handle_request_exception", _translating)


def _wrap(name: str, wrapper: Any) -> None:
    method = getattr(BaseHandler, name)
    stock: Any = method.__wrapped__ if hasattr(method, _ERROR) else method
    wrapped = wraps(stock)(wrapper(stock))
    setattr(wrapped, _ERROR, True)
    setattr(BaseHandler, name, wrapped)


def _remembering(stock: Any) -> Any:
    async def get_current_user(self: Any) -> Any:
        try:
            return await stock(self)
        except Exception as error:
            if is_busy(error):
                setattr(self, _ERROR, error)  # `prepare` only logs it
            raise

    return get_current_user


def _refusing(stock: Any) -> Any:
    async def prepare(self: Any) -> None:
        try:
            await stock(self)
        except Exception:
            # Without a user JupyterHub may find another fault, such as a missing XSRF token.
            if hasattr(self, _ERROR):
                raise DatabaseBusyError from getattr(self, _ERROR)
            raise
        if hasattr(self, _ERROR):
            raise DatabaseBusyError from getattr(self, _ERROR)

    return prepare


def _translating(stock: Any) -> Any:
    def handle(self: Any, error: BaseException) -> None:
        if not is_busy(error):
            stock(self, error)
            return
        self.log.warning("The database is busy: %s", error)
        self.db.rollback()
        try:  # Tornado takes the page's headers and text from the exception being handled
            raise DatabaseBusyError from error
        except DatabaseBusyError as busy:
            stock(self, busy)

    return handle
