"""Requests from SQS: as a service that waits for them, and as a function of AWS Lambda."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from labkit.base.files import LockTimeoutError
from labkit.base.problems import LabkitError
from labkit.storage.client import asking, client
from services.intake.requests import Requests
from services.intake.settings import Settings, SettingsError

_log = logging.getLogger("intake")
_WAIT = 10  # seconds that SQS holds a question for messages
_HIDDEN = 900  # seconds in which a message is nobody else's
_PAUSE = 30.0  # seconds after something that cannot be done now
_LATER = (LabkitError, LockTimeoutError, OSError)


def serve(settings: Settings, stop: threading.Event) -> None:
    """Take messages and follow their jobs until it is told to stop.

    What cannot be done now comes again: the queue gives its message back, and its own redrive
    policy says how often. What can never be done goes to the dead letters with all problems.

    Parameters
    ----------
    settings : Settings
        With the address of the queue.
    stop : threading.Event
        Set by another thread or a signal.

    Raises
    ------
    SettingsError
        No queue is named.
    """
    if not settings.queue:
        raise SettingsError("LABHUB_INTAKE_QUEUE must be set.")
    requests = Requests(settings)
    while not stop.is_set():
        try:
            receive(settings, requests)
            requests.follow()
        except _LATER as error:
            _log.warning("later again: %s", error)
            stop.wait(_PAUSE)


def receive(settings: Settings, requests: Requests, wait: int = _WAIT) -> int:
    """Take the messages that there are; return how many were done with.

    Parameters
    ----------
    settings : Settings
        With the address of the queue.
    requests : Requests
        Where they are kept.
    wait : int
        Seconds to wait for one.

    Raises
    ------
    StorageError
        SQS cannot be asked.
    """
    with asking("SQS"):
        sqs = client("sqs")
        messages = sqs.receive_message(
            QueueUrl=settings.queue,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            VisibilityTimeout=_HIDDEN,
        ).get("Messages", ())
    done = 0
    for message in messages:
        try:
            settle(settings, requests, message["MessageId"], message["Body"])
        except _LATER as error:
            _log.warning("%s: later again: %s", message["MessageId"], error)
            continue
        with asking("SQS"):
            sqs.delete_message(QueueUrl=settings.queue, ReceiptHandle=message["ReceiptHandle"])
        done += 1
    return done


def settle(settings: Settings, requests: Requests, message_id: str, body: str) -> dict[str, Any]:
    """Take one message; what can never run goes to the dead letters with its problems.

    Raises
    ------
    LabkitError
        It cannot be done now.
    """
    record = requests.take(message_id, body)
    if record["problems"] and settings.dead_letters:
        letter = {key: record[key] for key in ("id", "message", "problems")}
        with asking("SQS"):
            client("sqs").send_message(
                QueueUrl=settings.dead_letters, MessageBody=json.dumps(letter)
            )
    return record


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:  # noqa: ARG001
    """Take the messages of one event of AWS Lambda.

    Its folder must outlive the function (EFS); the event source asks for
    ``ReportBatchItemFailures``.

    Returns
    -------
    dict
        ``batchItemFailures``: the messages that shall come again.
    """
    settings = Settings.of_environment()
    requests = Requests(settings)
    failures = []
    for message in event["Records"]:
        try:
            settle(settings, requests, message["messageId"], message["body"])
        except _LATER as error:
            _log.warning("%s: later again: %s", message["messageId"], error)
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}
