"""The lab file's section ``slurm.parallelcluster``."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from hub.labfile.fields import Bytes, Duration, Frozen

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
Instance = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")]
Subnet = Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]{8,17}$")]
SecurityGroup = Annotated[str, StringConstraints(pattern=r"^sg-[0-9a-f]{8,17}$")]
FileSystem = Annotated[str, StringConstraints(pattern=r"^fs-[0-9a-f]{8,17}$")]
Ami = Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
# ParallelCluster's own rule for queues, which become partitions.
QueueName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,24}$")]
Place = Annotated[
    str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)+$")
]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.@-]{1,255}$")]
Policy = Annotated[
    str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:policy/[A-Za-z0-9+=,.@_/-]+$")
]
GIB = 1 << 30


class Machine(Frozen):
    """A node that is always on."""

    instance: Instance = "t3.xlarge"
    subnet: Subnet = Field(description="with the portal: a public one, browsers come here")
    security_groups: tuple[SecurityGroup, ...] = Field(
        (), description="besides the cluster's own: the one that opens the portal's port"
    )


class HeadMachine(Machine):
    """The head node: SLURM's controller, the disk /shared, and usually the portal."""

    disk: Bytes = Field(60 * GIB, ge=40 * GIB)


class LoginMachine(Machine):
    """The login node with the portal, behind the load balancer that ParallelCluster makes."""

    policy: Policy = Field(
        description="ARN of an IAM policy that may read `files`: login nodes have no rule for it"
    )


class Queue(Frozen):
    """A queue of the cluster, which SLURM knows as a partition."""

    name: QueueName
    purpose: Literal["servers", "jobs"] = Field(description="user servers, or jobs alone")
    instances: tuple[Instance, ...] = Field(
        min_length=1, description="of the same number of cores; the first that AWS has is taken"
    )
    spot: bool = Field(False, description="cheaper, and AWS may take a node away: not for servers")
    min_nodes: int = Field(0, ge=0, le=1000, description="always on, always paid")
    max_nodes: int = Field(10, ge=1, le=1000)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.min_nodes > self.max_nodes:
            raise ValueError("min_nodes is larger than max_nodes")
        if self.spot and self.purpose == "servers":
            raise ValueError("servers on spot nodes vanish with people's work: use spot for jobs")
        if len(set(self.instances)) < len(self.instances):
            raise ValueError("an instance type is named twice")
        return self


class Scratch(Frozen):
    """A fast file system at /scratch (FSx for Lustre); its data are gone with the cluster."""

    size: Bytes = Field(1200 * GIB, description="1200G, 2400G, 4800G, ...")

    @field_validator("size")
    @classmethod
    def _a_size_that_aws_has(cls, value: int) -> int:
        size = value // GIB
        if value % GIB or (size != 1200 and (size < 2400 or size % 2400)):
            raise ValueError("FSx has 1200G, 2400G and multiples of 2400G")
        return value


class ParallelCluster(Frozen):
    """AWS ParallelCluster: what `labhub render parallelcluster` makes a cluster of."""

    region: Region
    custom_ami: Ami | None = Field(None, description="Ubuntu 24.04; default: ParallelCluster's own")
    files: Place = Field(description="where the nodes fetch bootstrap.sh, labhub.tar.gz, lab.yaml")
    head: HeadMachine
    portal_on: Literal["head", "login"] = "head"
    login: LoginMachine | None = Field(
        None, description="portal_on login: the node with the portal"
    )
    subnets: tuple[Subnet, ...] = Field(min_length=1, description="of the compute nodes")
    queues: tuple[Queue, ...] = Field(min_length=1, max_length=50)
    idle_after: Duration = Field(
        timedelta(minutes=10), description="a node without jobs is switched off"
    )
    homes: FileSystem | None = Field(
        None, description="an EFS file system that exists, for /home; default: a new one, kept"
    )
    shared: Bytes = Field(100 * GIB, ge=50 * GIB, description="the disk /shared: environments")
    scratch: Scratch | None = None
    key_name: KeyName | None = Field(None, description="SSH key for administrators")
    ssh_from: ipaddress.IPv4Network = Field(
        ipaddress.IPv4Network("127.0.0.1/32"), description="who may reach SSH; default: nobody"
    )

    @field_validator("idle_after")
    @classmethod
    def _whole_minutes(cls, value: timedelta) -> timedelta:
        if value < timedelta(minutes=1) or value % timedelta(minutes=1):
            raise ValueError("must be whole minutes, at least one")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [queue.name for queue in self.queues]
        if len(set(names)) < len(names):
            raise ValueError("two queues have the same name")
        if not self.server_queues:
            raise ValueError("no queue is for servers")
        if (self.portal_on == "login") != (self.login is not None):
            raise ValueError("portal_on: login and the section login belong together")
        return self

    @property
    def server_queues(self) -> tuple[str, ...]:
        """The queues of user servers."""
        return tuple(queue.name for queue in self.queues if queue.purpose == "servers")

    @property
    def portal(self) -> Machine:
        """The node that the portal runs on."""
        return self.login or self.head
