"""S3 as moto has it: one server for all tests of the folder, a bucket for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from labkit.testing.moto import MotoServer
from tests.labkit.jobs.conftest import lab_home as lab_home
from tests.support.aws_faults import FaultyEndpoint

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """A server that answers for AWS."""
    with MotoServer() as server:
        yield server


@pytest.fixture
def aws(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    """AWS as all clients of this process find it."""
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return moto


@pytest.fixture
def s3(aws: MotoServer) -> Any:
    """A client that knows nothing of labkit, and goes past the faults."""
    import boto3

    return boto3.client("s3", **aws.client_options)


@pytest.fixture
def bucket(s3: Any) -> str:
    """An empty bucket."""
    name = f"lab-{next(_NUMBERS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def faulty_endpoint(moto: MotoServer) -> Iterator[FaultyEndpoint]:
    """The same server behind one that breaks things when told."""
    with FaultyEndpoint(moto.url).running() as endpoint:
        yield endpoint


@pytest.fixture
def faulty(
    aws: MotoServer, faulty_endpoint: FaultyEndpoint, monkeypatch: pytest.MonkeyPatch
) -> FaultyEndpoint:
    """AWS behind faults, none yet."""
    faulty_endpoint.faults, faulty_endpoint.requests = [], []
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty_endpoint.url)
    return faulty_endpoint
