"""What a server's job asks SLURM for besides its size: by profile, by group, by the lab."""

from __future__ import annotations

from collections.abc import Collection

from hub.labfile.schema import Profile, Settings
from hub.labfile.slurm import JobOptions


def job_options(settings: Settings, profile: Profile, groups: Collection[str] = ()) -> JobOptions:
    """Return the options of a server's job.

    Parameters
    ----------
    settings : Settings
        The lab file.
    profile : Profile
        Its own options come first.
    groups : collection of str
        The groups of the server's owner: the first in ``slurm.groups`` comes next.
    """
    if settings.slurm is None:
        return profile.slurm
    of_groups = settings.slurm.groups
    group = next((of_groups[name] for name in of_groups if name in groups), JobOptions())
    return profile.slurm.or_else(group).or_else(settings.slurm.job_options)
