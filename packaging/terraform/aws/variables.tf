variable "region" {
  description = "Where the bucket, the queues and the machines are."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket to be made for the fleet's store."
  type        = string
}

variable "path" {
  description = "Where in the bucket the fleet lies: fleet for s3://BUCKET/fleet; empty for the bucket as a whole."
  type        = string
  default     = "fleet"

  validation {
    condition     = !startswith(var.path, "/") && !endswith(var.path, "/")
    error_message = "No / at the beginning or the end."
  }
}

variable "queues" {
  description = "What the names of the fleet's queues begin with, PREFIX in sqs://REGION/PREFIX."
  type        = string
  default     = "haul"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,19}$", var.queues))
    error_message = "1 to 19 letters, digits, '-' and '_', as haul takes it."
  }
}

variable "versioning" {
  description = "Whether the bucket keeps what is written over and deleted for a day, and can be replicated."
  type        = bool
  default     = false
}

variable "forget_jobs_after_days" {
  description = "Logs and output of jobs are deleted when they are so old. Must be above what the longest job waits and runs, services included: of one that lives, the history would be deleted too. Null: never."
  type        = number
  default     = null

  validation {
    condition     = var.forget_jobs_after_days == null ? true : var.forget_jobs_after_days >= 60
    error_message = "At least 60: the history of a job that still waits or runs would be deleted too."
  }
}

variable "forget_nodes_after_days" {
  description = "Records of machines that have been silent for so long are deleted, as by `haul nodes rm`."
  type        = number
  default     = 30

  validation {
    condition     = var.forget_nodes_after_days >= 7
    error_message = "At least 7: a fleet that was switched off must find its records again."
  }
}

variable "events" {
  description = "Whether EventBridge hears of the bucket's objects, of those below index/done/ when a job has ended."
  type        = bool
  default     = false
}

variable "queues_made" {
  description = "Queues that are made here, before anybody uses them. Those of lanes are made by haul."
  type        = set(string)
  default     = ["inbox", "dead", "status"]

  validation {
    condition     = length(setsubtract(var.queues_made, ["inbox", "dead", "status"])) == 0
    error_message = "Of inbox, dead and status."
  }
}

variable "pool" {
  description = "The pool's name (haul fleet set pools=...); its machines carry the label pool=NAME."
  type        = string
  default     = "burst"
}

variable "pool_max" {
  description = "The most machines that there may ever be; the pool's own max is what haul goes by."
  type        = number
  default     = 4
}

variable "image" {
  description = "AMI with NVIDIA's driver and toolkit, and Docker: a Deep Learning Base AMI (Ubuntu), or a golden image of your own."
  type        = string
}

variable "machine_type" {
  description = "Instance type."
  type        = string
  default     = "g5.2xlarge"
}

variable "spot" {
  description = "Whether the machines are spot instances."
  type        = bool
  default     = false
}

variable "subnets" {
  description = "Subnets of the machines, with a way to S3, SQS, Auto Scaling and the registry of the images."
  type        = list(string)
}

variable "security_groups" {
  description = "Security groups of the machines. haul needs nothing inbound."
  type        = list(string)
}

variable "disk" {
  description = "GiB of the machines' disk: images of deep learning have 10 to 20 each."
  type        = number
  default     = 200
}

variable "package" {
  description = "Key of haul's .deb in the bucket."
  type        = string
  default     = "packages/haul_amd64.deb"
}

variable "nfs" {
  description = "What is mounted as the volume data, read-only: SERVER:/PATH."
  type        = string
}

variable "longest_grace" {
  description = "Seconds that a machine is kept so that its jobs can write checkpoints when it is to go: the agent's stop_deadline (10 minutes) and one more. Less does where the longest `grace` of all jobs and a minute are less."
  type        = number
  default     = 660
}
