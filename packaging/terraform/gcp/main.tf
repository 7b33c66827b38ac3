# A fleet's bucket at Google Cloud, and who may do what with it. haul's queue is Amazon's SQS here too: Google's Pub/Sub
# is none of the queues that haul knows.
terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0, < 8.0"
    }
  }
}

variable "project" {
  description = "The project."
  type        = string
}

variable "location" {
  description = "Where the bucket is: a region, near the machines."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket to be made for the fleet's store."
  type        = string
}

variable "path" {
  description = "Where in the bucket the fleet lies: fleet for gs://BUCKET/fleet; empty for the bucket as a whole."
  type        = string
  default     = "fleet"
}

variable "producers" {
  description = "Who submits, cancels and watches jobs, as IAM names them: user:ann@example.com, group:..."
  type        = set(string)
  default     = []
}

variable "forget_nodes_after_days" {
  description = "Records of machines that have been silent for so long are deleted, as by `haul nodes rm`."
  type        = number
  default     = 30
}

provider "google" {
  project = var.project
}

locals {
  prefix  = var.path == "" ? "" : "${var.path}/"
  fleet   = var.path == "" ? "gs://${var.bucket}" : "gs://${var.bucket}/${var.path}"
  objects = "projects/_/buckets/${var.bucket}/objects/${local.prefix}"
  # By its name: what has yet to be made cannot be counted.
  agent = "serviceAccount:haul-agent@${var.project}.iam.gserviceaccount.com"
  # To create where there was nothing, and to write over, which asks for the right to delete. As `haul init` has it for
  # AWS, except that a key has no end here: a producer may create below all of jobs/.
  grants = merge(
    {
      for grant in [
        { who = local.agent, role = "roles/storage.objectCreator", below = ["jobs/", "lanes/"] },
        { who = local.agent, role = "roles/storage.objectUser", below = ["nodes/", "index/", "probe/"] },
      ] : "agent-${grant.role}" => grant
    },
    merge([
      for who in var.producers : {
        for grant in [
          { who = who, role = "roles/storage.objectCreator", below = ["jobs/", "lanes/"] },
          { who = who, role = "roles/storage.objectUser", below = ["index/parked/", "index/sent/", "index/done/"] },
        ] : "${who}-${grant.role}" => grant
      }
    ]...)
  )
}

resource "google_storage_bucket" "store" {
  name                        = var.bucket
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Of a job's history nothing is ever deleted. This is for mistakes, and costs what nodes' records and markers of as long take.
  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 3600
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.forget_nodes_after_days
      matches_prefix = ["${local.prefix}nodes/"]
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 1
      matches_prefix = ["${local.prefix}probe/"]
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "google_service_account" "agent" {
  account_id   = "haul-agent"
  display_name = "haul: agents"
}

resource "google_storage_bucket_iam_member" "read" {
  for_each   = setunion([local.agent], var.producers)
  bucket     = google_storage_bucket.store.name
  role       = "roles/storage.objectViewer"
  member     = each.key
  depends_on = [google_service_account.agent]
}

resource "google_storage_bucket_iam_member" "write" {
  for_each   = local.grants
  bucket     = google_storage_bucket.store.name
  role       = each.value.role
  member     = each.value.who
  depends_on = [google_service_account.agent]

  condition {
    title      = "haul"
    expression = join(" || ", [for key in each.value.below : "resource.name.startsWith(\"${local.objects}${key}\")"])
  }
}

output "fleet" {
  description = "HAUL_FLEET, once it is made: haul init FLEET --queue sqs://REGION/PREFIX, by an owner of the bucket."
  value       = local.fleet
}

output "agent" {
  description = "The service account of machines. For the queue it needs a role at AWS (docs/cloud-credentials.md), by its unique_id."
  value       = { email = google_service_account.agent.email, unique_id = google_service_account.agent.unique_id }
}
