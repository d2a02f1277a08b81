# The queue of requests, its dead letters, and the function that takes them (docs/how-to/queue.md).

variable "name" { type = string }
variable "bucket" { type = string }
variable "bucket_arn" { type = string }
variable "image" { type = string }
variable "subnet_ids" { type = list(string) }
variable "security_group" { type = string }
variable "access_point_arn" { type = string }
variable "submit_policy" { type = string }

locals {
  timeout = 900 # seconds: CellProfiler looks at each pipeline
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-requests-dead"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "requests" {
  name                       = "${var.name}-requests"
  visibility_timeout_seconds = local.timeout
  message_retention_seconds  = 1209600
  sqs_managed_sse_enabled    = true
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 5
  })
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "function" {
  source_policy_documents = [var.submit_policy]
  statement {
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.requests.arn]
  }
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:ListBucket"]
    resources = [var.bucket_arn, "${var.bucket_arn}/*"]
  }
  statement {
    actions   = ["s3:PutObject"]
    resources = ["${var.bucket_arn}/exchange/intake/*"]
  }
  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.function.arn}:*"]
  }
  statement {
    actions   = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "elasticfilesystem:AccessPointArn"
      values   = [var.access_point_arn]
    }
  }
  statement {
    actions = [
      "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DeleteNetworkInterface",
    ]
    resources = ["*"] # Lambda's own, to be in a network
  }
}

resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}-intake"
  retention_in_days = 90
}

resource "aws_iam_role" "function" {
  name               = "${var.name}-intake"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "function" {
  name   = "intake"
  role   = aws_iam_role.function.id
  policy = data.aws_iam_policy_document.function.json
}

resource "aws_lambda_function" "intake" {
  count         = var.image == "" ? 0 : 1
  function_name = "${var.name}-intake"
  role          = aws_iam_role.function.arn
  package_type  = "Image"
  image_uri     = var.image
  timeout       = local.timeout
  memory_size   = 3008
  image_config {
    command = ["services.intake.queue.handler"]
  }
  environment {
    variables = {
      LABHUB_INTAKE_BUCKET       = var.bucket
      LABHUB_INTAKE_FOLDER       = "/mnt/intake"
      LABHUB_INTAKE_DEAD_LETTERS = aws_sqs_queue.dead_letters.url
      LABHUB_INTAKE_OPTIONS      = jsonencode({ batch_folder = "s3://${var.bucket}/exchange/intake" })
    }
  }
  file_system_config {
    arn              = var.access_point_arn
    local_mount_path = "/mnt/intake"
  }
  vpc_config {
    subnet_ids         = var.subnet_ids
    security_group_ids = [var.security_group]
  }
  depends_on = [aws_iam_role_policy.function, aws_cloudwatch_log_group.function]
}

resource "aws_lambda_event_source_mapping" "requests" {
  count                   = var.image == "" ? 0 : 1
  event_source_arn        = aws_sqs_queue.requests.arn
  function_name           = aws_lambda_function.intake[0].arn
  batch_size              = 1
  function_response_types = ["ReportBatchItemFailures"]
}

output "queues" {
  value = { requests = aws_sqs_queue.requests.url, dead_letters = aws_sqs_queue.dead_letters.url }
}
