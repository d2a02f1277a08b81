"""Whether many objects are there, and in which version, with few requests."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from labkit.storage import objects
from labkit.storage.address import ObjectAddress, parse
from labkit.storage.entry import Entry
from labkit.storage.errors import AddressError, DeniedError, NotFoundError, StorageError

_AT_ONCE = 16
_LISTED_FROM = 3  # objects of one folder: one list is cheaper than so many looks
_MOST_LISTED = 100  # entries listed for each one that is wanted


def look_all(addresses: Iterable[str]) -> dict[str, Entry | StorageError]:
    """Return size and version of each object, or why it cannot be read.

    Objects of one folder are found by listing it, a thousand a request.

    Parameters
    ----------
    addresses : iterable of str
        ``s3://bucket/key``.
    """
    seen: dict[str, Entry | StorageError] = {}
    folders: dict[ObjectAddress, dict[str, ObjectAddress]] = {}
    for text in dict.fromkeys(addresses):
        try:
            address = parse(text)
            if not isinstance(address, ObjectAddress) or address.is_folder:
                raise AddressError(f"{text} is no object: write s3://bucket/key.")
        except AddressError as error:
            seen[text] = error
            continue
        folder = ObjectAddress(address.bucket, address.key[: -len(address.name)])
        folders.setdefault(folder, {})[text] = address
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        many = [folder for folder, wanted in folders.items() if len(wanted) >= _LISTED_FROM]
        for listed in pool.map(lambda folder: _list(folder, folders[folder]), many):
            seen.update(listed)
        rest = {
            text: address
            for wanted in folders.values()
            for text, address in wanted.items()
            if text not in seen
        }
        seen.update(zip(rest, pool.map(_look, rest.values()), strict=True))
    return seen


def _list(
    folder: ObjectAddress, wanted: dict[str, ObjectAddress]
) -> dict[str, Entry | StorageError]:
    """Return what a list tells; nothing where it may not be asked for, or is too long."""
    listed: dict[str, Entry] = {}
    try:
        for number, entry in enumerate(objects.pages(folder, deep=False)):
            if number > 1000 + _MOST_LISTED * len(wanted):
                return {}
            if entry.address in wanted:
                listed[entry.address] = entry
    except DeniedError:
        return {}
    except StorageError as error:
        return dict.fromkeys(wanted, error)
    return {
        text: listed.get(text)
        or NotFoundError(f"There is no object {text}. Capitals count; see what is there.")
        for text in wanted
    }


def _look(address: ObjectAddress) -> Entry | StorageError:
    try:
        return objects.look(address)
    except StorageError as error:
        return error
