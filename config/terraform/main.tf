# What a lab needs of AWS for jobs on AWS Batch; docs/how-to/terraform.md goes through it.

module "storage" {
  source     = "./storage"
  name       = var.name
  bucket     = var.bucket
  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids
}

module "batch" {
  source       = "./batch"
  name         = var.name
  bucket_arn   = module.storage.bucket_arn
  projects     = keys(var.projects)
  vpc_id       = var.vpc_id
  subnet_ids   = var.subnet_ids
  max_vcpus    = var.max_vcpus
  service_role = var.batch_service_role
}

module "intake" {
  source           = "./intake"
  name             = var.name
  bucket           = var.bucket
  bucket_arn       = module.storage.bucket_arn
  image            = var.intake_image
  subnet_ids       = var.subnet_ids
  security_group   = module.storage.file_system_client
  access_point_arn = module.storage.access_point_arn
  submit_policy    = module.batch.submit_policy
}

module "budgets" {
  source       = "./budgets"
  name         = var.name
  projects     = { for name, amount in var.projects : name => amount if amount > 0 }
  alert_emails = var.alert_emails
}

# The lab file's section `batch`, but for the images.
output "lab_file" {
  description = "Put this into the lab file, with your images."
  value = yamlencode({
    batch = {
      queue  = module.batch.queues["spot"]
      folder = "s3://${var.bucket}/exchange"
      region = var.region
      role   = module.batch.job_roles[keys(var.projects)[0]]
    }
  })
}

output "job_roles" {
  description = "batch_role= of each project's jobs."
  value       = module.batch.job_roles
}

output "people_policies" {
  description = "Attach a project's to its people."
  value       = module.batch.people_policies
}

output "queue" {
  description = "LABHUB_INTAKE_QUEUE and LABHUB_INTAKE_DEAD_LETTERS."
  value       = module.intake.queues
}
