# One bucket for the lab, and a file system for what needs one.

variable "name" { type = string }
variable "bucket" { type = string }
variable "vpc_id" { type = string }
variable "subnet_ids" { type = list(string) }

resource "aws_s3_bucket" "lab" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "lab" {
  bucket                  = aws_s3_bucket.lab.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_versioning" "lab" {
  bucket = aws_s3_bucket.lab.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lab" {
  bucket = aws_s3_bucket.lab.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
    bucket_key_enabled = true
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "lab" {
  bucket     = aws_s3_bucket.lab.id
  depends_on = [aws_s3_bucket_versioning.lab]

  rule {
    id     = "data"
    status = "Enabled"
    filter {
      prefix = "projects/"
    }
    transition {
      days          = 30
      storage_class = "INTELLIGENT_TIERING"
    }
  }

  rule {
    id     = "archive"
    status = "Enabled"
    filter {
      prefix = "archive/"
    }
    transition {
      days          = 1
      storage_class = "GLACIER"
    }
  }

  # What nodes and people exchange: results are in the run folders by then.
  rule {
    id     = "exchange"
    status = "Enabled"
    filter {
      prefix = "exchange/"
    }
    expiration {
      days = 30
    }
  }

  rule {
    id     = "versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 90
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

data "aws_iam_policy_document" "tls" {
  statement {
    sid     = "OnlyTls"
    effect  = "Deny"
    actions = ["s3:*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    resources = [aws_s3_bucket.lab.arn, "${aws_s3_bucket.lab.arn}/*"]
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "lab" {
  bucket = aws_s3_bucket.lab.id
  policy = data.aws_iam_policy_document.tls.json
}

resource "aws_efs_file_system" "lab" {
  creation_token = var.name
  encrypted      = true
  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }
  lifecycle_policy {
    transition_to_primary_storage_class = "AFTER_1_ACCESS"
  }
  tags = { Name = var.name }
}

# Whoever has the first may reach the second, and nobody else.
resource "aws_security_group" "client" {
  name_prefix = "${var.name}-efs-client-"
  description = "May mount the lab's file system"
  vpc_id      = var.vpc_id
  egress {
    description = "NFS and AWS"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "file_system" {
  name_prefix = "${var.name}-efs-"
  description = "The lab's file system"
  vpc_id      = var.vpc_id
  ingress {
    description     = "NFS"
    from_port       = 2049
    to_port         = 2049
    protocol        = "tcp"
    security_groups = [aws_security_group.client.id]
  }
}

resource "aws_efs_mount_target" "lab" {
  count           = length(var.subnet_ids)
  file_system_id  = aws_efs_file_system.lab.id
  subnet_id       = var.subnet_ids[count.index]
  security_groups = [aws_security_group.file_system.id]
}

resource "aws_efs_access_point" "intake" {
  file_system_id = aws_efs_file_system.lab.id
  posix_user {
    uid = 10000
    gid = 10000
  }
  root_directory {
    path = "/intake"
    creation_info {
      owner_uid   = 10000
      owner_gid   = 10000
      permissions = "0700"
    }
  }
}

output "bucket_arn" {
  value = aws_s3_bucket.lab.arn
}

output "access_point_arn" {
  # The function can be made only when the file system answers.
  value      = aws_efs_access_point.intake.arn
  depends_on = [aws_efs_mount_target.lab]
}

output "file_system_client" {
  value = aws_security_group.client.id
}
