"""What can go wrong between here and the data; each text has the cause and the next step."""

from __future__ import annotations

from labkit.base.problems import LabkitError


class StorageError(LabkitError, OSError):
    """Data cannot be read or written; the text says which, why, and what to do."""


class AddressError(StorageError, ValueError):
    """It is no address of anything that can be reached."""


class NotFoundError(StorageError, FileNotFoundError):
    """There is no such object, file or bucket."""


class DeniedError(StorageError, PermissionError):
    """Reading or writing there is not allowed."""


class CredentialsError(StorageError):
    """There are no credentials, or they are not valid (any more)."""


class UnreachableError(StorageError):
    """No answer came: network, proxy or endpoint; nothing is known about the data."""


class ChangedError(StorageError):
    """It is not, or no longer, what it was expected to be."""


def code_of(error: StorageError) -> str:
    """Return S3's code of what an error was made of, e.g. ``"InvalidRange"``; may be empty."""
    response = getattr(error.__cause__, "response", {})
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def explained(address: object, error: Exception) -> StorageError:
    """Return what a client's error means for an address.

    Parameters
    ----------
    address : object
        What was asked for, as people write it.
    error : Exception
        botocore's or s3transfer's; other errors are told with their own text.
    """
    if type(error).__name__ == "S3UploadFailedError" and isinstance(error.__context__, Exception):
        error = error.__context__  # boto3 hides what S3 said in a text
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _of_answer(str(address), response, error)
    return _of_client(str(address), error)


_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
_DENIED = frozenset({"403", "AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException"}
    | {"InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"}
    | {"TokenRefreshRequired"}
)
_BUSY = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling"}
    | {"ThrottlingException", "TooManyRequestsException", "429", "500", "502", "503", "504"}
)
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "301", "AuthorizationHeaderMalformed"}
    | {"IllegalLocationConstraintException"}
)


def _of_answer(address: str, response: dict[str, object], error: Exception) -> StorageError:
    told = response.get("Error")
    code = str(told.get("Code", "")) if isinstance(told, dict) else ""
    operation = str(getattr(error, "operation_name", "") or "the request")
    if code == "NoSuchBucket":
        return NotFoundError(
            f"{address}: there is no such bucket. Check its name, and that your profile is the "
            "account's that has it."
        )
    if code in _MISSING:
        return NotFoundError(
            f"There is no object {address}. Capitals count; list what is there with "
            "labkit.storage.entries()."
        )
    if code in _DENIED:
        hidden = "Where you may not list a bucket, a name that is not there looks the same."
        return DeniedError(
            f"{address}: you may not do this ({operation}). Ask whoever administers it for that "
            f"permission, or choose another profile (AWS_PROFILE). "
            f"{hidden if address.startswith('s3:') else ''}".rstrip()
        )
    if code in _CREDENTIALS:
        return CredentialsError(
            f"{address}: your credentials are not valid ({code}). Log in again (aws sso login), or "
            "renew the keys in ~/.aws/credentials."
        )
    if code in ("412", "PreconditionFailed", "ConditionalRequestConflict"):
        return ChangedError(f"{address} was replaced meanwhile. Try again.")
    if code in ("InvalidObjectState", "ObjectNotInActiveTierError"):
        return StorageError(
            f"{address} lies in an archive. Have it restored first (restore-object), which takes "
            "hours, and try again then."
        )
    if code in _ELSEWHERE:
        return StorageError(
            f"{address} is in another region ({error}). Set AWS_REGION, or region in ~/.aws/config."
        )
    if code in _BUSY:
        return UnreachableError(
            f"{address}: the storage is too busy or out of order ({code}, after several tries). "
            "Try again in some minutes."
        )
    return StorageError(f"{address}: {error}")


_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
    | {"UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError"}
    | {"MetadataRetrievalError", "NoAuthTokenError", "LoginRefreshRequired"}
)
_NO_NETWORK = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyConnectionError"}
    | {"ConnectionClosedError", "SSLError", "HTTPClientError", "ConnectionError"}
    | {"ResponseStreamingError", "IncompleteReadError", "IncompleteRead", "ProtocolError"}
    | {"RetriesExceededError"}
)


def _of_client(address: str, error: Exception) -> StorageError:
    # By name: botocore is imported only where somebody uses it.
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & _NO_CREDENTIALS:
        return CredentialsError(
            f"{address}: no credentials were found ({error}). Log in (aws sso login), set "
            "AWS_PROFILE, or put keys into ~/.aws/credentials."
        )
    if "ProfileNotFound" in names:
        return CredentialsError(f"{address}: {error}. Its name must stand in ~/.aws/config.")
    if names & {"NoRegionError", "InvalidRegionError"}:
        return StorageError(f"{address}: {error} Set AWS_REGION, or region in ~/.aws/config.")
    if names & _NO_NETWORK:
        return UnreachableError(
            f"{address}: the connection failed or broke off ({error}). Is the network there, and "
            "is the endpoint right (AWS_ENDPOINT_URL)? Then try again."
        )
    if isinstance(error, OSError):
        kind = DeniedError if isinstance(error, PermissionError) else StorageError
        kind = NotFoundError if isinstance(error, FileNotFoundError) else kind
        return kind(f"{address}: {error.strerror or error}.")
    return StorageError(f"{address}: {error}")
