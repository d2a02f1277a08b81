# What each project may cost a month; somebody is told at four fifths and when it will be over.

variable "name" { type = string }
variable "projects" { type = map(number) }
variable "alert_emails" { type = list(string) }

resource "aws_budgets_budget" "project" {
  for_each     = var.projects
  name         = "${var.name}-${each.key}"
  budget_type  = "COST"
  limit_amount = format("%.1f", each.value)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"
  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:labhub:project$%s", each.key)]
  }
  dynamic "notification" {
    for_each = length(var.alert_emails) > 0 ? { ACTUAL = 80, FORECASTED = 100 } : {}
    content {
      comparison_operator        = "GREATER_THAN"
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      notification_type          = notification.key
      subscriber_email_addresses = var.alert_emails
    }
  }
}
