"""AWS ParallelCluster: its file made from the lab file, judged by its own tool against moto."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hub.deploy.parallelcluster.costs import idle_costs
from hub.deploy.parallelcluster.render import document, render
from hub.labfile.read import parse, read
from hub.labfile.schema import Settings
from hub.slurm.cloud import read_queues
from labkit.base.ports import free_port
from labkit.base.problems import ProblemsError
from tests.conftest import needs_env
from tests.support.portal import REPOSITORY, built_envs

EXAMPLE = REPOSITORY / "config" / "lab.parallelcluster.yaml"
SCRIPTS = REPOSITORY / "config" / "parallelcluster"
# moto answers a trial RunInstances as if its disk had no size.
SUPPRESSED = ("HeadNodeLaunchTemplateValidator", "ComputeResourceLaunchTemplateValidator")


def example(**changes: Any) -> Settings:
    """The example, with other values in slurm.parallelcluster."""
    lab = YAML(typ="safe").load(EXAMPLE.read_text())
    lab["slurm"]["parallelcluster"] |= changes
    return settings(lab)


def settings(lab: Mapping[str, Any]) -> Settings:
    return parse(json.dumps(lab))


def problems(**changes: Any) -> str:
    with pytest.raises(ProblemsError) as caught:
        example(**changes)
    return str(caught.value)


LOGIN = {
    "instance": "t3.large",
    "subnet": "subnet-0123456789abcdef0",
    "policy": "arn:aws:iam::123456789012:policy/labhub-files",
}


# -- what is made ---------------------------------------------------------------------


def test_the_file_is_the_cluster_of_the_lab_file() -> None:
    made = YAML(typ="safe").load(render(read(EXAMPLE)))
    queues = {queue["Name"]: queue for queue in made["Scheduling"]["SlurmQueues"]}
    assert list(queues) == ["servers", "servers-large", "servers-gpu", "jobs", "jobs-spot"]
    assert queues["jobs-spot"]["CapacityType"] == "SPOT"
    assert queues["jobs-spot"]["AllocationStrategy"] == "capacity-optimized"
    assert {queues[n]["CapacityType"] for n in queues if n != "jobs-spot"} == {"ONDEMAND"}
    assert made["Scheduling"]["SlurmSettings"]["ScaledownIdletime"] == 10
    storage = {entry["MountDir"]: entry for entry in made["SharedStorage"]}
    assert set(storage) == {"/home", "/shared"}
    assert storage["/home"]["EfsSettings"]["DeletionPolicy"] == "Retain"
    assert all(
        entry.get("EfsSettings", entry.get("EbsSettings"))["Encrypted"]
        for entry in storage.values()
    )
    assert made["HeadNode"]["Ssh"]["AllowedIps"] == "127.0.0.1/32"
    assert made["HeadNode"]["Imds"]["Secured"] is True


def test_every_node_runs_the_script_in_its_role_and_reads_only_its_folder() -> None:
    made = document(example().slurm.parallelcluster)  # type: ignore[union-attr, arg-type]
    nodes = [made["HeadNode"], *made["Scheduling"]["SlurmQueues"]]
    roles = [node["CustomActions"]["OnNodeConfigured"]["Args"][0] for node in nodes]
    assert roles == ["portal", *["compute"] * 5]
    for node in nodes:
        assert node["Iam"]["S3Access"] == [
            {"BucketName": "our-lab-bucket", "KeyName": "labhub/*", "EnableWriteAccess": False}
        ]
    with_login = document(
        example(portal_on="login", login=LOGIN).slurm.parallelcluster  # type: ignore[union-attr, arg-type]
    )
    assert with_login["HeadNode"]["CustomActions"]["OnNodeConfigured"]["Args"][0] == "head"
    assert "ElasticIp" not in with_login["HeadNode"]["Networking"]
    (pool,) = with_login["LoginNodes"]["Pools"]
    assert pool["CustomActions"]["OnNodeConfigured"]["Args"][0] == "portal"
    assert pool["Count"] == 1


def test_the_spawn_page_reads_the_same_queues_and_prices_back(tmp_path: Path) -> None:
    file = tmp_path / "cluster-config.yaml"
    file.write_text(render(read(EXAMPLE)))
    queues = read_queues(file)
    assert queues["servers"].instances == ("m6i.2xlarge",)
    assert queues["jobs-spot"].spot
    assert len(queues["jobs-spot"].instances) == 3


def test_the_idle_month_is_counted_up() -> None:
    def month(**changes: Any) -> dict[str, float | None]:
        cluster = example(**changes).slurm.parallelcluster  # type: ignore[union-attr]
        assert cluster is not None
        costs = idle_costs(cluster)
        assert costs.total == pytest.approx(sum(p or 0 for _, p in costs.items))
        return dict(costs.items)

    plain = month()
    assert plain["head node t3.xlarge"] == pytest.approx(0.1664 * 730)
    assert plain["disks, 160 GB"] == pytest.approx(12.8)
    assert month(scratch={"size": "1200G"})["scratch, 1.17 TB"] == pytest.approx(168)
    always = {"name": "servers", "purpose": "servers", "instances": ["m6i.2xlarge"], "min_nodes": 2}
    queues = [
        always,
        *YAML(typ="safe").load(EXAMPLE.read_text())["slurm"]["parallelcluster"]["queues"][1:],
    ]
    assert month(queues=queues)["2 x m6i.2xlarge always on in servers"] == pytest.approx(560.64)
    assert month(portal_on="login", login=LOGIN)["login node t3.large"] == pytest.approx(
        60.7, rel=0.01
    )
    unknown = {"instance": "z9.huge", "subnet": LOGIN["subnet"]}
    assert month(head=unknown)["head node z9.huge"] is None
    text = render(example(head=unknown))
    assert "# While nobody works it costs about" in text
    assert "head node z9.huge: price not known" in text


# -- what is refused ------------------------------------------------------------------


def test_contradictions_of_the_lab_file_are_all_told_with_a_hint() -> None:
    lab = YAML(typ="safe").load(EXAMPLE.read_text())
    lab["profiles"] = [{"name": "a", "title": "A"}]
    lab["slurm"] |= {"partitions": ["servers", "jobs", "other"], "hub_host": "head"}
    with pytest.raises(ProblemsError) as caught:
        render(settings(lab))
    text = str(caught.value)
    for part in (
        "the partition jobs is no queue for servers",
        "the partition other is no queue for servers",
        "the queue servers-gpu is for servers, but people cannot choose it",
        "write hub_host: labhub-portal",
    ):
        assert part in text
    del lab["slurm"]["parallelcluster"]
    with pytest.raises(ProblemsError, match="describes no ParallelCluster"):
        render(settings(lab))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"region": "europe"}, "region"),
        ({"files": "s3://bucket"}, "files"),
        ({"files": "https://x.example/y"}, "files"),
        ({"files": "s3://bucket/a b;id"}, "files"),
        ({"subnets": ["vpc-1"]}, "subnets"),
        ({"subnets": []}, "subnets"),
        ({"custom_ami": "ami-x; id"}, "custom_ami"),
        ({"idle_after": "30s"}, "whole minutes"),
        ({"idle_after": "90s"}, "whole minutes"),
        ({"scratch": {"size": "1000G"}}, "FSx has 1200G"),
        ({"scratch": {"size": "3600G"}}, "FSx has 1200G"),
        ({"portal_on": "login"}, "belong together"),
        ({"login": LOGIN}, "belong together"),
        ({"ssh_from": "0.0.0.0/33"}, "ssh_from"),
        ({"key_name": "a\nb"}, "key_name"),
        (
            {"queues": [{"name": "a", "purpose": "jobs", "instances": ["c5.large"]}]},
            "no queue is for servers",
        ),
        (
            {"queues": [{"name": "A b", "purpose": "servers", "instances": ["c5.large"]}]},
            "queues.0.name",
        ),
        (
            {
                "queues": [
                    {"name": "a", "purpose": "servers", "instances": ["c5.large"], "spot": True}
                ]
            },
            "servers on spot nodes vanish",
        ),
        (
            {
                "queues": [
                    {
                        "name": "a",
                        "purpose": "servers",
                        "instances": ["c5.large"],
                        "min_nodes": 5,
                        "max_nodes": 2,
                    }
                ]
            },
            "min_nodes is larger",
        ),
        (
            {
                "queues": [
                    {"name": "a", "purpose": "servers", "instances": ["c5.large", "c5.large"]}
                ]
            },
            "named twice",
        ),
    ],
)
def test_what_aws_would_refuse_is_refused_first(changes: dict[str, Any], says: str) -> None:
    assert says in problems(**changes)


# -- the command ----------------------------------------------------------------------


def test_the_command_prints_the_file_and_tells_problems(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hub", "render", "parallelcluster", "--config"]
    env = {**os.environ, "LABHUB_STATE": str(tmp_path / "state")}

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(file)], capture_output=True, text=True, env=env, cwd=REPOSITORY
        )

    good = run(EXAMPLE)
    assert good.returncode == 0
    assert good.stdout == render(read(EXAMPLE))
    for name, text in (
        ("lab.yaml", "is nothing that can be made for the target of this lab file"),
        ("lab.slurm.yaml", "describes no ParallelCluster"),
    ):
        bad = run(REPOSITORY / "config" / name)
        assert bad.returncode == 1
        assert bad.stdout == ""
        assert text in bad.stderr
    assert not (tmp_path / "state").exists()


# -- ParallelCluster's own tool -------------------------------------------------------


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An account at moto with a network, a bucket and an image; returns ids and variables."""
    port = free_port()
    server = Path(sys.executable).with_name("moto_server")
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=subprocess.STDOUT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/moto-api/", timeout=2)
                break
            assert process.poll() is None, "moto_server has ended"
            assert time.monotonic() < end, "moto_server does not answer"
            time.sleep(0.1)
        yield _account(url)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _account(url: str) -> dict[str, str]:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    session = boto3.Session(region_name="us-east-1", **keys)
    ec2, s3 = (session.client(name, endpoint_url=url) for name in ("ec2", "s3"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    zone = {"VpcId": vpc, "AvailabilityZone": "us-east-1a"}
    public = ec2.create_subnet(CidrBlock="10.0.0.0/24", **zone)["Subnet"]["SubnetId"]
    private = ec2.create_subnet(CidrBlock="10.0.16.0/20", **zone)["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    table = tables["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    for subnet in (public, private):
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    images = ec2.describe_images(Owners=["amazon"])["Images"]
    image = next(
        i for i in images if i["Architecture"] == "x86_64" and i["RootDeviceType"] == "ebs"
    )
    s3.create_bucket(Bucket="our-lab-bucket")
    for name in ("bootstrap.sh", "labhub.tar.gz", "lab.yaml"):
        s3.put_object(Bucket="our-lab-bucket", Key=f"labhub/{name}", Body=b"x")
    statement = {
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::our-lab-bucket/labhub/*",
    }
    policy = session.client("iam", endpoint_url=url).create_policy(
        PolicyName="labhub-files",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )
    return {
        "url": url,
        "public": public,
        "private": private,
        "group": ec2.create_security_group(GroupName="portal", Description="443", VpcId=vpc)[
            "GroupId"
        ],
        "image": image["ImageId"],
        "policy": policy["Policy"]["Arn"],
    }


def dry_run(aws: Mapping[str, str], made: Settings, folder: Path) -> tuple[int, dict[str, Any]]:
    """Let `pcluster create-cluster --dryrun` judge; returns its exit code and answer."""
    file = folder / "cluster.yaml"
    file.write_text(render(made))
    program = built_envs() / "parallelcluster" / "bin" / "pcluster"
    done = subprocess.run(
        [
            *(program, "create-cluster", "--cluster-name", "lab", "--region", "us-east-1"),
            *("--cluster-configuration", file, "--dryrun", "true"),
            *("--suppress-validators", *(f"type:{name}" for name in SUPPRESSED)),
        ],
        capture_output=True,
        text=True,
        timeout=150,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # its log
            "AWS_ENDPOINT_URL": aws["url"],
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def at_moto(aws: Mapping[str, str], **changes: Any) -> Settings:
    head = {
        "instance": "t3.xlarge",
        "subnet": aws["public"],
        "security_groups": [aws["group"]],
    }
    place = {"head": head, "subnets": [aws["private"]], "custom_ami": aws["image"]}
    return example(**{**place, **changes})


@needs_env("parallelcluster")
def test_the_example_passes_parallelclusters_own_validators(
    aws: dict[str, str], tmp_path: Path
) -> None:
    status, answer = dry_run(aws, at_moto(aws), tmp_path)
    assert answer["message"] == "Request would have succeeded, but DryRun flag is set.", answer
    assert status == 1  # pcluster's exit code of a dry run that went well
    found = answer.get("configurationValidationErrors") or answer.get("validationMessages") or []
    assert [message for message in found if message["level"] == "ERROR"] == []


@needs_env("parallelcluster")
@pytest.mark.slow
def test_the_variant_with_login_node_and_scratch_passes_too(
    aws: dict[str, str], tmp_path: Path
) -> None:
    login = {"instance": "t3.large", "subnet": aws["public"], "policy": aws["policy"]}
    made = at_moto(aws, portal_on="login", login=login, scratch={"size": "1200G"})
    _, answer = dry_run(aws, made, tmp_path)
    assert answer["message"] == "Request would have succeeded, but DryRun flag is set.", answer


@needs_env("parallelcluster")
@pytest.mark.slow
def test_its_validators_do_judge(aws: dict[str, str], tmp_path: Path) -> None:
    queue = {"name": "servers", "purpose": "servers", "instances": ["m6i.2xlarge", "m6i.8xlarge"]}
    lab = YAML(typ="safe").load(EXAMPLE.read_text())
    queues = [queue, *lab["slurm"]["parallelcluster"]["queues"][1:]]
    status, answer = dry_run(aws, at_moto(aws, queues=queues), tmp_path)
    assert status == 1
    errors = [m for m in answer["configurationValidationErrors"] if m["level"] == "ERROR"]
    assert any("vCPU" in error["message"] for error in errors), answer


# -- the nodes' script ----------------------------------------------------------------


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_scripts_pass_shellcheck() -> None:
    files = [*SCRIPTS.glob("*.sh"), *(REPOSITORY / "tests" / "hub" / "deploy").glob("*.bats")]
    assert len(files) >= 2
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("bats") is None, reason="needs bats")
def test_the_scripts_do_what_they_say() -> None:
    folder = REPOSITORY / "tests" / "hub" / "deploy"
    done = subprocess.run(["bats", "--tap", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("\nok ") >= 12
