"""Talk to the app of the published datasets."""

from __future__ import annotations

from labkit.portal.client import AppClient, AppError


class PublishError(AppError):
    """The app of the published datasets refused, failed, or cannot be reached."""


class Client(AppClient):
    """The app of the published datasets, as one person."""

    app = "cellxgene"
    api = "_/api/"
    what = "the published datasets"
    error = PublishError
