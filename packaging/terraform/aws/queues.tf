# Queues of lanes are haul's to make: who submits to a lane first makes its queue, and the policies allow it. These three
# have names that are known. They are as haul would make them; it takes them as they are, so change what you like.
#
# No redrive_policy: agents put what is no job into the dead letters, with the reason. What they cannot route for another
# reason, such as a store that is down, must stay in the inbox however often it was received.
resource "aws_sqs_queue" "fleet" {
  for_each                   = var.queues_made
  name                       = "${var.queues}-${each.key}"
  message_retention_seconds  = 14 * 24 * 3600
  receive_wait_time_seconds  = 20
  visibility_timeout_seconds = 60
  max_message_size           = 1048576
  sqs_managed_sse_enabled    = true
  tags                       = { haul = each.key }
}
