"""Make AWS ParallelCluster's configuration from the lab file."""

from __future__ import annotations

from io import StringIO
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from hub.deploy.parallelcluster.costs import idle_costs
from hub.labfile.parallelcluster import GIB, LoginMachine, ParallelCluster, Queue
from hub.labfile.schema import Settings
from labkit.base.problems import Problem, ProblemsError

PORTAL_HOST = "labhub-portal"  # bootstrap.sh writes it into every node's /etc/hosts
ENVIRONMENTS = "/shared/labhub/envs"
_LIMIT = 30 * 60  # seconds that AWS may take to start a node


def render(settings: Settings) -> str:
    """Return the cluster's configuration file, with what it costs while nobody works.

    Parameters
    ----------
    settings : Settings
        The lab file.

    Raises
    ------
    ProblemsError
        It does not describe such a cluster, or contradicts itself.
    """
    cluster = _checked(settings)
    out = StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(document(cluster), out)
    lines = [
        "Made by `labhub render parallelcluster` from the lab file: change that, not this.",
        "",
        *idle_costs(cluster).lines(),
    ]
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return head + out.getvalue()


def document(cluster: ParallelCluster) -> dict[str, Any]:
    """Return the configuration as ParallelCluster's schema has it (version 3)."""
    image: dict[str, Any] = {"Os": "ubuntu2404"}
    if cluster.custom_ami:
        image["CustomAmi"] = cluster.custom_ami
    configuration: dict[str, Any] = {
        "Region": cluster.region,
        "Image": image,
        "Imds": {"ImdsSupport": "v2.0"},
        "HeadNode": _head(cluster),
        "Scheduling": {
            "Scheduler": "slurm",
            "SlurmSettings": {
                "ScaledownIdletime": int(cluster.idle_after.total_seconds() // 60),
                # Without it SLURM would put any number of servers into a node's memory.
                "EnableMemoryBasedScheduling": True,
                "QueueUpdateStrategy": "DRAIN",
            },
            "SlurmQueues": [_queue(cluster, queue) for queue in cluster.queues],
        },
        "SharedStorage": _storage(cluster),
        "Monitoring": {"Logs": {"CloudWatch": {"Enabled": True, "RetentionInDays": 30}}},
        "Tags": [{"Key": "labhub", "Value": "portal"}],
    }
    if cluster.login:
        configuration["LoginNodes"] = {"Pools": [_login(cluster, cluster.login)]}
    return configuration


def _checked(settings: Settings) -> ParallelCluster:
    slurm = settings.slurm
    if slurm is None or slurm.parallelcluster is None:
        text = "the lab file describes no ParallelCluster"
        hint = "see config/lab.parallelcluster.yaml: target slurm, section slurm.parallelcluster"
        raise ProblemsError([Problem("slurm.parallelcluster", text, hint)])
    cluster = slurm.parallelcluster
    problems = []
    for name in set(slurm.partitions) - set(cluster.server_queues):
        text = f"the partition {name} is no queue for servers"
        hint = f"queues for servers are: {', '.join(cluster.server_queues)}"
        problems.append(Problem("slurm.partitions", text, hint))
    for name in set(cluster.server_queues) - set(slurm.partitions):
        text = f"the queue {name} is for servers, but people cannot choose it"
        problems.append(Problem("slurm.partitions", text, f"add {name}, or its purpose is jobs"))
    for key, value, wanted in (
        ("hub_host", slurm.hub_host, PORTAL_HOST),
        ("environments", str(slurm.environments), ENVIRONMENTS),
    ):
        if value != wanted:
            text = f"{key} is {value}, but every node of the cluster knows {wanted}"
            problems.append(Problem(f"slurm.{key}", text, f"write {key}: {wanted}"))
    if problems:
        raise ProblemsError(sorted(problems, key=str))
    return cluster


def _head(cluster: ParallelCluster) -> dict[str, Any]:
    head = cluster.head
    network: dict[str, Any] = {"SubnetId": head.subnet}
    if cluster.portal_on == "head":
        network["ElasticIp"] = True  # the address stays when the machine is stopped
    if head.security_groups:
        network["AdditionalSecurityGroups"] = list(head.security_groups)
    ssh: dict[str, Any] = {"AllowedIps": str(cluster.ssh_from)}
    if cluster.key_name:
        ssh["KeyName"] = cluster.key_name
    return {
        "InstanceType": head.instance,
        "Networking": network,
        "Ssh": ssh,
        "LocalStorage": {
            "RootVolume": {"Size": head.disk // GIB, "VolumeType": "gp3", "Encrypted": True}
        },
        # Only root may ask the instance's metadata, where its rights in AWS are.
        "Imds": {"Secured": True},
        **_bootstrap(cluster, "portal" if cluster.portal_on == "head" else "head"),
    }


def _login(cluster: ParallelCluster, login: LoginMachine) -> dict[str, Any]:
    network: dict[str, Any] = {"SubnetIds": [login.subnet]}
    if login.security_groups:
        network["AdditionalSecurityGroups"] = list(login.security_groups)
    pool: dict[str, Any] = {
        "Name": "portal",
        "Count": 1,
        "InstanceType": login.instance,
        "GracetimePeriod": 10,
        "Networking": network,
        "Ssh": {"AllowedIps": str(cluster.ssh_from)},
    }
    if cluster.key_name:
        pool["Ssh"]["KeyName"] = cluster.key_name
    # ParallelCluster lets login nodes have policies, but no S3Access.
    rights = {"Iam": {"AdditionalIamPolicies": [{"Policy": login.policy}]}}
    return pool | _bootstrap(cluster, "portal") | rights


def _queue(cluster: ParallelCluster, queue: Queue) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "Name": queue.name,
        "CapacityType": "SPOT" if queue.spot else "ONDEMAND",
        "Networking": {"SubnetIds": list(cluster.subnets)},
        "ComputeResources": [
            {
                "Name": "nodes",
                "Instances": [{"InstanceType": name} for name in queue.instances],
                "MinCount": queue.min_nodes,
                "MaxCount": queue.max_nodes,
            }
        ],
        **_bootstrap(cluster, "compute"),
    }
    if queue.spot:  # the default, lowest-price, would take what AWS soon takes back
        entry["AllocationStrategy"] = "capacity-optimized"
    return entry


def _bootstrap(cluster: ParallelCluster, role: str) -> dict[str, Any]:
    parts = urlsplit(cluster.files)
    key = parts.path.strip("/")
    return {
        "CustomActions": {
            "OnNodeConfigured": {
                "Script": f"{cluster.files}/bootstrap.sh",
                "Args": [role, cluster.files],
            }
        },
        "Iam": {
            "S3Access": [
                {"BucketName": parts.netloc, "KeyName": f"{key}/*", "EnableWriteAccess": False}
            ]
        },
    }


def _storage(cluster: ParallelCluster) -> list[dict[str, Any]]:
    homes: dict[str, Any] = (
        {"FileSystemId": cluster.homes}
        if cluster.homes
        else {
            "Encrypted": True,
            "ThroughputMode": "bursting",
            "DeletionPolicy": "Retain",  # people's work outlives the cluster
        }
    )
    mounts: list[dict[str, Any]] = [
        {
            "MountDir": "/home",
            "Name": "homes",
            "StorageType": "Efs",
            "EfsSettings": homes | {"EncryptionInTransit": True},
        },
        {
            # Environments are many small files, and made anew at any time: a disk, not EFS.
            "MountDir": "/shared",
            "Name": "shared",
            "StorageType": "Ebs",
            "EbsSettings": {
                "VolumeType": "gp3",
                "Size": cluster.shared // GIB,
                "Encrypted": True,
                "DeletionPolicy": "Delete",
            },
        },
    ]
    if cluster.scratch:
        mounts.append(
            {
                "MountDir": "/scratch",
                "Name": "scratch",
                "StorageType": "FsxLustre",
                "FsxLustreSettings": {
                    "DeploymentType": "SCRATCH_2",
                    "StorageCapacity": cluster.scratch.size // GIB,
                    "DataCompressionType": "LZ4",
                    "DeletionPolicy": "Delete",
                },
            }
        )
    return mounts
