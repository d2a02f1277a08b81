"""What a server gets: the one allow-list behind the form, the query and the API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hub.labfile.schema import Profile, Settings
from labkit.base.units import format_size

OPTION = "profile"
PARTITION = "partition"
Partitions = Callable[[Profile], tuple[str, ...]]


@dataclass(frozen=True)
class Choice:
    """What a person chose, from what is on offer.

    Attributes
    ----------
    profile : Profile
        An environment and what a server may use.
    partition : str
        Where its job goes; empty on targets without partitions.
    """

    profile: Profile
    partition: str = ""

    @property
    def options(self) -> dict[str, str]:
        """The options that lead to this choice again."""
        place = {PARTITION: self.partition} if self.partition else {}
        return {OPTION: self.profile.name, **place}


class OptionsError(ValueError):
    """What was asked for is not on offer.

    Attributes
    ----------
    status : int
        The HTTP status that says so: 400, or 403 where a profile is for others.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def usable(settings: Settings, groups: Collection[str], admin: bool = False) -> tuple[Profile, ...]:
    """Return the profiles that a person may use, in the order of the lab file.

    Parameters
    ----------
    settings : Settings
        The lab file.
    groups : collection of str
        The groups that the person is in.
    admin : bool
        Administrators may use every profile.
    """
    return tuple(
        p for p in settings.profiles if admin or not p.groups or set(p.groups) & set(groups)
    )


def no_partitions(_profile: Profile) -> tuple[str, ...]:
    """Return the partitions that a profile may run in where there are none."""
    return ()


def preferred(settings: Settings, offered: Collection[Profile], last: object = None) -> Profile:
    """Return what is selected before a person chooses: the last choice, else the default.

    Raises
    ------
    OptionsError
        Nothing is offered to this person.
    """
    if not offered:
        raise OptionsError("No profile is open to you: ask your lab's administrator.", 403)
    for name in (last, settings.default_profile.name):
        for profile in offered:
            if profile.name == name:
                return profile
    return next(iter(offered))


def from_form(fields: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Turn a form's or query's fields (lists of values) into options; checks nothing.

    A field that came once becomes its value, another one stays a list, which `choose`
    then refuses.
    """
    return {key: values[0] if len(values) == 1 else list(values) for key, values in fields.items()}


def choose(
    options: object,
    settings: Settings,
    offered: Collection[Profile],
    partitions: Partitions = no_partitions,
) -> Choice:
    """Return what a person asked for; every other wish is an error.

    Parameters
    ----------
    options : object
        What came in, from any form or request: nothing of it is trusted.
    settings : Settings
        The lab file.
    offered : collection of Profile
        What the person may use (`usable`).
    partitions : callable
        Returns the partitions that a profile may run in, the default first.

    Raises
    ------
    OptionsError
        With all that is wrong, and what can be chosen.
    """
    fallback = preferred(settings, offered)
    if not isinstance(options, Mapping):
        raise OptionsError(f"The options must be like {{{OPTION!r}: {fallback.name!r}}}.")
    wrong = []
    status = 400
    keys = (OPTION, PARTITION) if partitions(fallback) else (OPTION,)
    unknown = sorted(_shown(key) for key in options if key not in keys)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        known = " and ".join(map(repr, keys))
        wrong.append(f"Only {known} can be chosen, not {', '.join(unknown[:5])}{more}.")
    chosen = fallback
    if OPTION in options:
        wanted = options[OPTION]
        matching = [p for p in settings.profiles if isinstance(wanted, str) and p.name == wanted]
        if not isinstance(wanted, str):
            wrong.append(f"{OPTION!r} must be one name, not {_shown(wanted)}.")
        elif not matching:
            wrong.append(f"There is no profile {_shown(wanted)}.")
        elif matching[0] not in offered:
            wrong.append(f"You may not use the profile {wanted!r}.")
            status = 400 if unknown else 403
        else:
            chosen = matching[0]
    places = partitions(chosen)
    place = next(iter(places), "")
    if PARTITION in keys and PARTITION in options:
        wanted = options[PARTITION]
        if isinstance(wanted, str) and wanted in places:
            place = wanted
        else:
            wrong.append(
                f"The profile {chosen.name!r} cannot run in the partition {_shown(wanted)},"
                f" but in: {', '.join(places)}."
            )
    if wrong:
        names = ", ".join(p.name for p in offered)
        raise OptionsError(" ".join([*wrong, f"You can choose: {names}."]), status)
    return Choice(chosen, place)


def choose_again(
    options: object,
    settings: Settings,
    offered: Collection[Profile],
    partitions: Partitions = no_partitions,
) -> tuple[Choice, str]:
    """Return the choice of an earlier run, or the default where it is gone.

    Parameters
    ----------
    options, settings, offered, partitions
        As for `choose`.

    Returns
    -------
    choice : Choice
        What the server gets.
    note : str
        What to tell its owner; empty where all is as before.
    """
    try:
        return choose(options, settings, offered, partitions), ""
    except OptionsError as error:
        profile = preferred(settings, offered)
        reason = str(error).split(" You can choose:")[0]
        choice = Choice(profile, next(iter(partitions(profile)), ""))
        return choice, f"Your last choice is not on offer: {reason} Using {profile.title!r}."


def cards(offered: Collection[Profile], selected: Profile | None) -> list[dict[str, Any]]:
    """Return what the spawn page shows of each profile."""
    return [
        {
            "name": p.name,
            "title": p.title,
            "description": p.description,
            "environment": p.environment,
            "cpu": f"{p.cpu:g} {'core' if p.cpu == 1 else 'cores'}",
            "memory": format_size(p.memory),
            "gpus": f"{p.gpus} {'GPU' if p.gpus == 1 else 'GPUs'}" if p.gpus else "",
            "selected": selected is not None and p.name == selected.name,
        }
        for p in offered
    ]


def _shown(value: object) -> str:
    """Write a hostile value short and harmless."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
