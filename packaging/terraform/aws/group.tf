locals {
  group = "${var.queues}-${var.pool}"
  hook  = "haul-agent"
  # Lines of packaging/cloud-init/aws.yaml that are marked EDIT there.
  edits = {
    "HAUL_FLEET=s3://example-bucket/fleet"                                           = "HAUL_FLEET=${local.fleet}"
    "AWS_REGION=eu-central-1"                                                        = "AWS_REGION=${var.region}"
    "HAUL_LABELS=pool=burst"                                                         = "HAUL_LABELS=pool=${var.pool}"
    "ExecStopPost=+-/usr/share/haul/haul-hook-done haul-burst haul-agent"            = "ExecStopPost=+-/usr/share/haul/haul-hook-done ${local.group} ${local.hook}"
    "again aws s3 cp s3://example-bucket/packages/haul_amd64.deb /run/haul.deb"      = "again aws s3 cp s3://${var.bucket}/${var.package} /run/haul.deb"
    "sed -i 's,^What=.*,What=nfs.example:/data,' /etc/systemd/system/mnt-data.mount" = "sed -i 's,^What=.*,What=${var.nfs},' /etc/systemd/system/mnt-data.mount"
  }
  user_data = join("\n", [
    for line in split("\n", file("${path.module}/../../cloud-init/aws.yaml")) :
    format("%s%s", regex("^ *", line), lookup(local.edits, trimspace(line), trimspace(line)))
  ])
}

resource "aws_launch_template" "pool" {
  name_prefix            = "${local.group}-"
  image_id               = var.image
  instance_type          = var.machine_type
  user_data              = base64encode(local.user_data)
  vpc_security_group_ids = var.security_groups
  update_default_version = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.agent.arn
  }

  # One hop: the agent, on the host, learns its name and gets credentials; containers of jobs, a hop further, do not.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/sda1"

    ebs {
      volume_size           = var.disk
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []

    content {
      market_type = "spot"
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = local.group, haul-fleet = var.queues }
  }
}

resource "aws_autoscaling_group" "pool" {
  name                = local.group
  min_size            = 0
  max_size            = var.pool_max
  vpc_zone_identifier = var.subnets
  # Who goes is haul's to say, by name: nothing else may end a machine that has jobs.
  protect_from_scale_in = true
  suspended_processes   = ["AZRebalance"]
  health_check_type     = "EC2"
  # Machines take minutes to come, and one that does not come is no reason to wait here.
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.pool.id
    version = "$Latest"
  }

  # Set by haul-scale, which asks haul.
  lifecycle {
    ignore_changes = [desired_capacity]
  }
}

resource "aws_autoscaling_lifecycle_hook" "pool" {
  name                   = local.hook
  autoscaling_group_name = aws_autoscaling_group.pool.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.longest_grace
  default_result         = "CONTINUE"
}
