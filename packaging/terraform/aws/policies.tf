# As `haul init URL --queue sqs://REGION/PREFIX --policies` prints them; a test of the project compares. Attach them to
# whom each is for.
locals {
  kinds = {
    agent          = "agents: the instance role of GPU hosts, or a role for hosts elsewhere"
    producer       = "people and programs that submit, cancel and watch jobs"
    inbox-producer = "programs that only leave job specs in the inbox"
    reader         = "dashboards and people who only look"
    operator       = "operators, beside a producer's: settings, nodes that are gone, purges"
  }
}

resource "aws_iam_policy" "fleet" {
  for_each    = local.kinds
  name        = "${var.queues}-${each.key}"
  description = "haul: ${each.value}"
  policy = templatefile("${path.module}/policies/${each.key}.json.tftpl", {
    partition = data.aws_partition.here.partition
    bucket    = var.bucket
    prefix    = local.prefix
    region    = var.region
    queues    = var.queues
  })
}

# For whoever runs packaging/autoscaling/haul-scale, beside a reader's.
resource "aws_iam_policy" "scaler" {
  name        = "${var.queues}-scaler"
  description = "haul: haul-scale, beside a reader's"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Look"
        Effect   = "Allow"
        Action   = "autoscaling:DescribeAutoScalingGroups"
        Resource = "*"
      },
      {
        Sid      = "Size"
        Effect   = "Allow"
        Action   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource = aws_autoscaling_group.pool.arn
      },
    ]
  })
}

resource "aws_iam_role" "agent" {
  name = "${var.queues}-agent"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.${data.aws_partition.here.dns_suffix}" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "agent" {
  role       = aws_iam_role.agent.name
  policy_arn = aws_iam_policy.fleet["agent"].arn
}

# What the machines need beside the agent: the package, and to say when they may be ended.
resource "aws_iam_role_policy" "machine" {
  name = "machine"
  role = aws_iam_role.agent.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Package"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${aws_s3_bucket.store.arn}/${var.package}"
      },
      {
        Sid      = "Hook"
        Effect   = "Allow"
        Action   = "autoscaling:CompleteLifecycleAction"
        Resource = aws_autoscaling_group.pool.arn
      },
    ]
  })
}

resource "aws_iam_instance_profile" "agent" {
  name = "${var.queues}-agent"
  role = aws_iam_role.agent.name
}
