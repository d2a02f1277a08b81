"""config/terraform: valid, and its whole life at moto: applied, planned again, removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit.testing.moto import MotoServer

pytestmark = [pytest.mark.aws, pytest.mark.slow]
SOURCE = Path(__file__).parents[2] / "config" / "terraform"
PROVIDER = "**/hashicorp/aws/*/*/terraform-provider-aws*"
PLACES = ("/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins")
# Of moto alone: it has no accounts to check, and buckets have no host names of their own.
OVERRIDE = """
provider "aws" {
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  s3_use_path_style           = true
}
"""


def plugins() -> Path | None:
    """Return the folder of plug-ins that has the provider; None where there is none."""
    named = os.environ.get("LABHUB_TERRAFORM_PLUGINS")
    places = [Path(named)] if named else [Path.home() / ".terraform.d/plugins"]
    places += [Path(place) for place in PLACES]
    places += sorted(Path("/opt").glob("*"))
    for place in places:
        if next(place.glob(PROVIDER), None) is not None:
            return place
    return None


def client(moto: MotoServer, service: str) -> Any:
    """Return boto3's client; imported here, since it takes long and other tests need it not."""
    import boto3

    return boto3.client(service, **moto.client_options)


class Terraform:
    """Terraform in a copy of the modules."""

    def __init__(self, folder: Path, plugin_folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        shutil.copytree(SOURCE, folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_"))}
        own = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        self._env = {**kept, **own, **env}
        self("init", "-backend=false", f"-plugin-dir={plugin_folder}")

    def __call__(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command and return what it says; it is ended after five minutes."""
        command, *rest = words
        flags = [] if command in ("fmt", "validate", "show", "output") else ["-input=false"]
        done = subprocess.run(
            ["terraform", command, *flags, *rest],
            cwd=self.folder, env=self._env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode in codes, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def terraform_folder() -> Path:
    place = plugins()
    if shutil.which("terraform") is None:
        pytest.skip("needs terraform")
    if place is None:
        pytest.skip("needs Terraform's aws provider on a disk (LABHUB_TERRAFORM_PLUGINS)")
    return place


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture(scope="module")
def applied(
    moto: MotoServer, terraform_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terraform]:
    ec2 = client(moto, "ec2")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=network, CidrBlock=f"10.0.{n}.0/24")["Subnet"]["SubnetId"]
        for n in (1, 2)
    ]
    iam = client(moto, "iam")
    role = iam.create_role(RoleName="batch-itself", AssumeRolePolicyDocument="{}")["Role"]
    env = {**moto.environment, "AWS_EC2_METADATA_DISABLED": "true"}
    terraform = Terraform(tmp_path_factory.mktemp("aws") / "lab", terraform_folder, env)
    (terraform.folder / "moto_override.tf").write_text(OVERRIDE)
    settings = {
        "name": "lab",
        "region": "us-east-1",
        "bucket": "our-lab",
        "projects": {"imaging": 0, "genomics": 0},  # moto cannot tell a budget's tags
        "vpc_id": network,
        "subnet_ids": subnets,
        "batch_service_role": role["Arn"],
        "intake_image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/intake:1",
    }
    (terraform.folder / "lab.auto.tfvars.json").write_text(json.dumps(settings))
    terraform("apply", "-auto-approve")
    yield terraform


def test_it_is_formatted_and_valid(terraform_folder: Path, tmp_path: Path) -> None:
    terraform = Terraform(tmp_path / "lab", terraform_folder, {})
    assert terraform("fmt", "-check", "-recursive") == ""
    assert json.loads(terraform("validate", "-json"))["diagnostics"] == []


def test_the_bucket_is_closed_versioned_and_tidied(applied: Terraform, moto: MotoServer) -> None:
    s3 = client(moto, "s3")
    block = s3.get_public_access_block(Bucket="our-lab")["PublicAccessBlockConfiguration"]
    assert all(block.values())
    assert len(block) == 4
    assert s3.get_bucket_versioning(Bucket="our-lab")["Status"] == "Enabled"
    rules = s3.get_bucket_lifecycle_configuration(Bucket="our-lab")["Rules"]
    kept = {rule["ID"]: rule for rule in rules}
    assert kept["exchange"]["Expiration"]["Days"] == 30
    assert kept["data"]["Transitions"][0]["StorageClass"] == "INTELLIGENT_TIERING"
    (statement,) = json.loads(s3.get_bucket_policy(Bucket="our-lab")["Policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == (
        "Deny",
        {"Bool": {"aws:SecureTransport": "false"}},
    )
    (system,) = client(moto, "efs").describe_file_systems()["FileSystems"]
    assert system["Encrypted"]


def test_a_project_reaches_its_own_prefixes_alone(applied: Terraform, moto: MotoServer) -> None:
    iam = client(moto, "iam")
    for project in ("imaging", "genomics"):
        policy = iam.get_role_policy(RoleName=f"lab-job-{project}", PolicyName="data")
        statements = policy["PolicyDocument"]["Statement"]
        assert all("*" not in action for one in statements for action in one["Action"])
        objects, bucket = statements
        wanted = [f"arn:aws:s3:::our-lab/{top}/{project}/*" for top in ("projects", "exchange")]
        assert sorted(objects["Resource"]) == sorted(wanted)
        assert sorted(bucket["Condition"]["StringLike"]["s3:prefix"]) == [
            f"exchange/{project}/*",
            f"projects/{project}/*",
        ]
    machine = iam.get_role_policy(RoleName="lab-batch-machine", PolicyName="machine")
    assert "s3:" not in json.dumps(machine["PolicyDocument"]), "machines read no data"


def test_jobs_have_a_queue_on_spot_and_one_on_demand(applied: Terraform, moto: MotoServer) -> None:
    batch = client(moto, "batch")
    queues = {one["jobQueueName"] for one in batch.describe_job_queues()["jobQueues"]}
    assert queues == {"lab-spot", "lab-on-demand"}
    kinds = {
        one["computeResources"]["type"]: one["computeResources"]["minvCpus"]
        for one in batch.describe_compute_environments()["computeEnvironments"]
    }
    assert kinds == {"SPOT": 0, "EC2": 0}


def test_what_cannot_be_taken_becomes_a_dead_letter(applied: Terraform, moto: MotoServer) -> None:
    sqs = client(moto, "sqs")
    url = sqs.get_queue_url(QueueName="lab-requests")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    redrive = json.loads(attributes["RedrivePolicy"])
    assert redrive["deadLetterTargetArn"].endswith(":lab-requests-dead")
    lambdas = client(moto, "lambda")
    (source,) = lambdas.list_event_source_mappings()["EventSourceMappings"]
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    function = lambdas.get_function(FunctionName="lab-intake")["Configuration"]
    assert function["Timeout"] <= int(attributes["VisibilityTimeout"])


def test_it_goes_away_again(applied: Terraform, moto: MotoServer) -> None:
    """The last of the module: what was applied is planned again, then removed."""
    lab_file = json.loads(applied("output", "-json"))["lab_file"]["value"]
    assert "queue" in lab_file
    assert "s3://our-lab/exchange" in lab_file
    budgets = """-var=projects={"imaging": 200, "genomics": 0}"""
    again = applied("plan", budgets, '-var=alert_emails=["lab@example.org"]', "-no-color")
    assert "0 to destroy" in again
    created = [line for line in again.splitlines() if line.endswith(" will be created")]
    assert created == ['  # module.budgets.aws_budgets_budget.project["imaging"] will be created']
    assert again.count("+ notification {") == 2
    applied("destroy", "-auto-approve")
    assert client(moto, "s3").list_buckets()["Buckets"] == []
    assert client(moto, "batch").describe_job_queues()["jobQueues"] == []
    assert "State" not in applied("show")
