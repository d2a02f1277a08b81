"""Talk to the app of the published datasets."""

from __future__ import annotations

from labkit.portal.client import AppError
from labkit.portal.publishing.client import PublishingClient


class PublishError(AppError):
    """The app of the published datasets refused, failed, or cannot be reached."""


class Client(PublishingClient):
    """The app of the published datasets, as one person."""

    app = "cellxgene"
    api = "_/api/"
    what = "the published datasets"
    error = PublishError
    listing = "datasets"
    one = "datasets/"
