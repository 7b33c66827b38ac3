output "fleet" {
  description = "HAUL_FLEET, once it is made."
  value       = local.fleet
}

output "init" {
  description = "Makes the fleet, once, with an operator's rights."
  value       = "haul init ${local.fleet} --queue sqs://${var.region}/${var.queues}"
}

output "policies" {
  description = "ARNs by kind: for people, programs, and hosts elsewhere."
  value       = merge({ for kind, policy in aws_iam_policy.fleet : kind => policy.arn }, { scaler = aws_iam_policy.scaler.arn })
}

output "scale" {
  description = "HAUL_SCALE of haul-scale@aws."
  value       = "${var.pool}=${aws_autoscaling_group.pool.name}"
}
