# Machines for jobs: spot and on demand; a role for each project that reaches its prefix alone.

variable "name" { type = string }
variable "bucket_arn" { type = string }
variable "projects" { type = list(string) }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }
variable "max_vcpus" { type = number }
variable "service_role" { type = string }

data "aws_partition" "here" {}
data "aws_caller_identity" "here" {}
data "aws_region" "here" {}

locals {
  logs = "arn:${data.aws_partition.here.partition}:logs:${data.aws_region.here.name}:${data.aws_caller_identity.here.account_id}:log-group:/aws/batch/job"
  jobs = "arn:${data.aws_partition.here.partition}:batch:${data.aws_region.here.name}:${data.aws_caller_identity.here.account_id}"
}

data "aws_iam_policy_document" "trust" {
  for_each = toset(["ec2", "ecs-tasks"])
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
  }
}

# Of the machines: to be part of the cluster, to pull images, to write logs. No data.
data "aws_iam_policy_document" "machine" {
  statement {
    actions = [
      "ecs:DeregisterContainerInstance", "ecs:DiscoverPollEndpoint", "ecs:Poll",
      "ecs:RegisterContainerInstance", "ecs:StartTelemetrySession", "ecs:Submit*",
      "ecs:UpdateContainerInstancesState", "ecs:TagResource", "ec2:DescribeTags",
      "ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage",
      "ecr:GetDownloadUrlForLayer",
    ]
    resources = ["*"] # none of them can be narrowed
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${local.logs}:*"]
  }
}

resource "aws_iam_role" "machine" {
  name               = "${var.name}-batch-machine"
  assume_role_policy = data.aws_iam_policy_document.trust["ec2"].json
}

resource "aws_iam_role_policy" "machine" {
  name   = "machine"
  role   = aws_iam_role.machine.id
  policy = data.aws_iam_policy_document.machine.json
}

resource "aws_iam_instance_profile" "machine" {
  name = "${var.name}-batch-machine"
  role = aws_iam_role.machine.name
}

resource "aws_cloudwatch_log_group" "jobs" {
  name              = "/aws/batch/job"
  retention_in_days = 90
}

resource "aws_security_group" "machine" {
  name_prefix = "${var.name}-batch-"
  description = "Machines of jobs: nobody reaches them"
  vpc_id      = var.vpc_id
  egress {
    description = "S3, ECR, CloudWatch"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_batch_compute_environment" "jobs" {
  for_each                        = { spot = "SPOT", on-demand = "EC2" }
  compute_environment_name_prefix = "${var.name}-${each.key}-"
  type                            = "MANAGED"
  service_role                    = var.service_role == "" ? null : var.service_role
  compute_resources {
    type                = each.value
    allocation_strategy = each.value == "SPOT" ? "SPOT_PRICE_CAPACITY_OPTIMIZED" : "BEST_FIT_PROGRESSIVE"
    instance_role       = aws_iam_instance_profile.machine.arn
    instance_type       = ["optimal"]
    min_vcpus           = 0 # nothing runs, nothing costs
    max_vcpus           = var.max_vcpus
    subnets             = var.subnet_ids
    security_group_ids  = [aws_security_group.machine.id]
  }
  lifecycle {
    create_before_destroy = true
  }
  depends_on = [aws_iam_role_policy.machine]
}

resource "aws_batch_job_queue" "jobs" {
  for_each = aws_batch_compute_environment.jobs
  name     = "${var.name}-${each.key}"
  state    = "ENABLED"
  priority = 1
  compute_environment_order {
    order               = 1
    compute_environment = each.value.arn
  }
}

# A project's data, and its jobs' exchange; nothing of another's.
data "aws_iam_policy_document" "project" {
  for_each = toset(var.projects)
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    resources = [for top in ["projects", "exchange"] : "${var.bucket_arn}/${top}/${each.key}/*"]
  }
  statement {
    actions   = ["s3:ListBucket"]
    resources = [var.bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for top in ["projects", "exchange"] : "${top}/${each.key}/*"]
    }
  }
}

resource "aws_iam_role" "job" {
  for_each           = toset(var.projects)
  name               = "${var.name}-job-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust["ecs-tasks"].json
  tags               = { "labhub:project" = each.key }
}

resource "aws_iam_role_policy" "job" {
  for_each = aws_iam_role.job
  name     = "data"
  role     = each.value.id
  policy   = data.aws_iam_policy_document.project[each.key].json
}

data "aws_iam_policy_document" "submit" {
  statement {
    actions = [
      "batch:DescribeJobs", "batch:ListJobs", "batch:DescribeJobQueues",
      "batch:DescribeJobDefinitions",
    ]
    resources = ["*"] # none of them can be narrowed
  }
  statement {
    actions = ["batch:SubmitJob", "batch:TagResource", "batch:RegisterJobDefinition"]
    resources = concat(
      [for queue in aws_batch_job_queue.jobs : queue.arn],
      ["${local.jobs}:job-definition/labkit-*", "${local.jobs}:job/*"],
    )
  }
  statement {
    actions   = ["batch:TerminateJob"]
    resources = ["${local.jobs}:job/*"]
  }
  statement {
    actions   = ["logs:GetLogEvents"]
    resources = ["${local.logs}:*"]
  }
}

# Of people: a project's data, its jobs, and its role for them.
data "aws_iam_policy_document" "people" {
  for_each = toset(var.projects)
  source_policy_documents = [
    data.aws_iam_policy_document.submit.json,
    data.aws_iam_policy_document.project[each.key].json,
  ]
  statement {
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.job[each.key].arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "people" {
  for_each = toset(var.projects)
  name     = "${var.name}-people-${each.key}"
  policy   = data.aws_iam_policy_document.people[each.key].json
}

output "queues" {
  value = { for kind, queue in aws_batch_job_queue.jobs : kind => queue.name }
}

output "job_roles" {
  value = { for project, role in aws_iam_role.job : project => role.arn }
}

output "people_policies" {
  value = { for project, policy in aws_iam_policy.people : project => policy.arn }
}

output "submit_policy" {
  value = data.aws_iam_policy_document.submit.json
}
