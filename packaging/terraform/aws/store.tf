locals {
  # As haul puts it before each key.
  prefix = var.path == "" ? "" : "${var.path}/"
  fleet  = var.path == "" ? "s3://${var.bucket}" : "s3://${var.bucket}/${var.path}"
}

resource "aws_s3_bucket" "store" {
  bucket = var.bucket

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket                  = aws_s3_bucket.store.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# With S3's own key. One of KMS would need kms:Decrypt and kms:GenerateDataKey in all policies, and is asked at every
# object.
resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_policy" "store" {
  bucket = aws_s3_bucket.store.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EncryptedOnTheWay"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.store.arn, "${aws_s3_bucket.store.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.store]
}

# What is the truth is never written over, and no policy here lets anybody delete it. Versions would be kept of the
# rest alone: nodes' records, new every 15 s, and markers that come and go. They are of use where administrators are to
# be kept from mistakes, or for replication (docs/operating.md).
resource "aws_s3_bucket_versioning" "store" {
  count  = var.versioning ? 1 : 0
  bucket = aws_s3_bucket.store.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket     = aws_s3_bucket.store.id
  depends_on = [aws_s3_bucket_versioning.store]

  rule {
    id     = "unfinished"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  # Listings are slow across what was deleted.
  rule {
    id     = "versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 1
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  # A node that lives writes its record every 15 s. Machines that come and go each leave one.
  rule {
    id     = "nodes-that-are-gone"
    status = "Enabled"

    filter {
      prefix = "${local.prefix}nodes/"
    }

    expiration {
      days = var.forget_nodes_after_days
    }
  }

  # Left by an agent that died while it tried the store.
  rule {
    id     = "probes"
    status = "Enabled"

    filter {
      prefix = "${local.prefix}probe/"
    }

    expiration {
      days = 1
    }
  }

  # Output cannot be told from history here: a rule knows how a key begins, and both are below jobs/JOB/.
  rule {
    id     = "jobs"
    status = var.forget_jobs_after_days == null ? "Disabled" : "Enabled"

    filter {
      prefix = "${local.prefix}jobs/"
    }

    expiration {
      days = coalesce(var.forget_jobs_after_days, 3650)
    }
  }

  # Younger than all else of its job, so gone last.
  rule {
    id     = "jobs-in-listings"
    status = var.forget_jobs_after_days == null ? "Disabled" : "Enabled"

    filter {
      prefix = "${local.prefix}index/done/"
    }

    expiration {
      days = coalesce(var.forget_jobs_after_days, 3650)
    }
  }
}

resource "aws_s3_bucket_notification" "store" {
  count       = var.events ? 1 : 0
  bucket      = aws_s3_bucket.store.id
  eventbridge = true
}
