variable "name" {
  description = "Begins every name: small letters, digits, hyphens."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Use 2 to 21 small letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of everything."
  type        = string
}

variable "bucket" {
  description = "Name of the lab's bucket; names are the world's, not yours alone."
  type        = string
}

variable "projects" {
  description = "Each has a prefix of the bucket, a role of its jobs, a policy of its people, and a budget (USD a month; 0: none)."
  type        = map(number)
}

variable "vpc_id" {
  description = "Network that machines of jobs are in."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets with a way to S3, ECR and CloudWatch (NAT or endpoints)."
  type        = list(string)
}

variable "max_vcpus" {
  description = "Cores that jobs can have at once, on each of the two queues."
  type        = number
  default     = 256
}

variable "batch_service_role" {
  description = "ARN of the role of AWS Batch itself; empty: the one that AWS makes."
  type        = string
  default     = ""
}

variable "intake_image" {
  description = "Image of the queue's Lambda function; empty: the queue without it."
  type        = string
  default     = ""
}

variable "alert_emails" {
  description = "Whom budgets tell; empty: budgets that tell nobody."
  type        = list(string)
  default     = []
}
