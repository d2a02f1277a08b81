"""The lab file's section ``slurm``."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from hub.labfile.fields import Duration, Frozen, GroupName, Slug
from hub.labfile.parallelcluster import ParallelCluster

EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - a default that doctor warns of
Partition = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
GpuType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Constraint = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_(\[][A-Za-z0-9_.&|*()\[\],-]{0,199}$")
]
Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+/-]{0,99}$")]
HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
]


class JobOptions(Frozen):
    """What a server's job asks SLURM for besides cores, memory and time."""

    account: Word | None = None
    qos: Word | None = None
    reservation: Word | None = None
    constraint: Constraint | None = Field(
        None, description="features of nodes: icelake, or icelake&nvme"
    )
    gpu_type: GpuType | None = Field(None, description="of the profile's gpus: a100")

    def or_else(self, other: JobOptions) -> JobOptions:
        """Return these options, and the other's where these say nothing."""
        said = {key: value for key, value in self if value is not None}
        return other.model_copy(update=said)


class Software(Frozen):
    """An environment that is no virtual environment: modules, or an Apptainer image."""

    modules: tuple[Module, ...] = Field((), description="environment modules to load, in order")
    image: Path | None = Field(None, description="an Apptainer image on storage of the nodes")

    @field_validator("image")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return plain_path(value) if value else None

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if not self.modules and self.image is None:
            raise ValueError("name modules or an image")
        return self


def plain_path(value: Path) -> Path:
    """Return an absolute path as it is.

    Raises
    ------
    ValueError
        It is none, or has ``..``.
    """
    if not value.is_absolute() or ".." in value.parts or not str(value).isprintable():
        raise ValueError("must be an absolute path without '..'")
    return value


class Slurm(Frozen):
    """The slurm target: each user server is a SLURM job."""

    partitions: tuple[Partition, ...] = Field(
        min_length=1, description="what people may choose from; the first is the default"
    )
    account: Word | None = None
    qos: Word | None = None
    groups: dict[GroupName, JobOptions] = Field(
        default_factory=dict,
        description="options of the jobs of a group's members; of the first that somebody is in",
    )
    time_limit: Duration = timedelta(hours=8)
    warn_before: Duration = Field(
        timedelta(minutes=10), description="people are told so long before the time limit"
    )
    queue_timeout: Duration = Field(
        timedelta(minutes=15), description="so long a server may wait in the queue"
    )
    boot_timeout: Duration = Field(
        timedelta(minutes=20),
        description="and so long its node may take to start, and the server on it to answer",
    )
    hub_host: HostName = Field(description="where compute nodes reach the hub")
    listen: IPv4Address | None = Field(
        None,
        description="this host's address on which hub and gate listen for the nodes;"
        " default: hub_host where that is an address, else all (0.0.0.0)",
    )
    internal_ssl: bool = Field(
        False,
        description="TLS between hub, proxy, gate and servers, by certificates of the portal's own",
    )
    environments: Path = Field(description="the environments on storage that the nodes share")
    software: dict[Slug, Software] = Field(
        default_factory=dict, description="environments that are modules or Apptainer images"
    )
    ports: str = Field("25000-29999", description="ports of the nodes that the servers use")
    network: Literal["auto", "namespace", "shared"] = Field(
        "auto", description="a network namespace for each server: where possible, always, never"
    )
    own_nodes: bool = Field(False, description="no node is shared by two people (--exclusive=user)")

    cluster_config: Path = Field(
        Path("/opt/parallelcluster/shared/cluster-config.yaml"),
        description="AWS ParallelCluster's own configuration: instances and prices; may be absent",
    )
    parallelcluster: ParallelCluster | None = Field(
        None, description="makes `labhub render parallelcluster` print such a cluster"
    )

    @field_validator("environments", "cluster_config")
    @classmethod
    def _shared_folder(cls, value: Path) -> Path:
        return plain_path(value)

    @field_validator("ports")
    @classmethod
    def _range(cls, value: str) -> str:
        first, _, last = value.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) < 65536):
            raise ValueError("must be like 25000-29999, from 1024 on")
        return value

    @field_validator("time_limit", "queue_timeout", "boot_timeout")
    @classmethod
    def _a_minute(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1):
            raise ValueError("must be a minute or more")
        return value

    @model_validator(mode="after")
    def _warned_in_time(self) -> Self:
        if self.warn_before >= self.time_limit:
            raise ValueError("warn_before must be shorter than time_limit")
        return self

    @model_validator(mode="after")
    def _two_listeners(self) -> Self:
        if self.internal_ssl and self.bind_address in (EVERYWHERE, LOOPBACK):
            raise ValueError(
                "internal_ssl: name the one address of this host on which the nodes reach it"
                " in slurm.listen"
            )
        return self

    @property
    def job_options(self) -> JobOptions:
        """What all servers' jobs ask for."""
        return JobOptions(account=self.account, qos=self.qos)

    @property
    def bind_address(self) -> str:
        """The address on which hub and gate listen for the nodes."""
        if self.listen is not None:
            return str(self.listen)
        try:
            return str(IPv4Address(self.hub_host))
        except AddressValueError:
            return EVERYWHERE

    @property
    def port_range(self) -> range:
        """The ports that a server may take."""
        first, _, last = self.ports.partition("-")
        return range(int(first), int(last) + 1)
