//! What each kind of participant may do, as policies of AWS IAM: no more than its part of the
//! protocol takes.
//!
//! Keys are granted by family. Nobody but an operator writes `fleet/`. Logs, lanes, output and
//! settings may be created and never overwritten, by whomever: S3 tells the two apart by
//! `s3:if-none-match` (Amazon S3 User Guide, "Enforce conditional writes on Amazon S3 buckets").
//!
//! Listing is granted with `StringLikeIfExists`: without the right to list, S3 answers 403 and not
//! 404 for an object that is not there, and where it asks itself that question, no prefix is given.
//! So the bucket can be listed as a whole; its other objects cannot be read.

use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use crate::fleet::QueueSettings;

/// A policy and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// For file names and commands: `agent`.
    pub name: &'static str,
    /// Who needs it.
    pub whom: &'static str,
    /// What IAM takes.
    pub document: Value,
}

/// Reads and writes of one kind of participant, as key patterns below the fleet's URL.
struct Rights {
    name: &'static str,
    whom: &'static str,
    read: &'static [&'static str],
    /// What it creates where there was nothing.
    create: &'static [&'static str],
    /// What it writes over.
    write: &'static [&'static str],
    delete: &'static [&'static str],
    /// Actions on the fleet's queues.
    queues: &'static [&'static str],
    /// Actions on the inbox alone.
    inbox: &'static [&'static str],
    /// Actions that are on no queue in particular.
    any: &'static [&'static str],
}

const ALL: &[&str] = &["*"];

const KINDS: [Rights; 5] = [
    Rights {
        name: "agent",
        whom: "agents: the instance role of GPU hosts, or a role for hosts elsewhere",
        read: ALL,
        create: &["jobs/*", "lanes/*"],
        write: &["nodes/*", "index/*", "probe/*"],
        delete: &["index/*", "nodes/*", "probe/*"],
        queues: &[
            "sqs:ChangeMessageVisibility",
            "sqs:CreateQueue",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ReceiveMessage",
            "sqs:SendMessage",
            "sqs:TagQueue",
        ],
        inbox: &[],
        any: &[],
    },
    Rights {
        name: "producer",
        whom: "people and programs that submit, cancel and watch jobs",
        read: ALL,
        create: &["jobs/*/log/*", "lanes/*"],
        write: &["index/parked/*", "index/sent/*", "index/done/*"],
        delete: &["index/parked/*", "index/sent/*", "index/done/*"],
        queues: &[
            "sqs:CreateQueue",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:SendMessage",
            "sqs:TagQueue",
        ],
        inbox: &[],
        any: &[],
    },
    Rights {
        name: "inbox-producer",
        whom: "programs that only leave job specs in the inbox",
        read: &[],
        create: &[],
        write: &[],
        delete: &[],
        queues: &[],
        inbox: &["sqs:GetQueueUrl", "sqs:SendMessage"],
        any: &[],
    },
    Rights {
        name: "reader",
        whom: "dashboards and people who only look",
        read: ALL,
        create: &[],
        write: &[],
        delete: &[],
        queues: &["sqs:GetQueueAttributes", "sqs:GetQueueUrl"],
        inbox: &[],
        any: &[],
    },
    Rights {
        name: "operator",
        whom: "operators, beside a producer's: settings, nodes that are gone, purges",
        read: ALL,
        create: &["fleet/*"],
        write: &["index/*", "probe/*"],
        delete: &["index/*", "nodes/*", "probe/*"],
        queues: &[
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:PurgeQueue",
            "sqs:ReceiveMessage",
        ],
        inbox: &[],
        any: &["sqs:ListQueues"],
    },
];

/// The policies of a fleet at AWS. Of a store or a queue that is not AWS's they say nothing.
pub fn policies(store: &Url, queue: &QueueSettings) -> Vec<Policy> {
    let bucket = matches!(store.scheme(), "s3" | "s3a").then(|| Bucket::of(store)).flatten();
    let (partition, queues) = match queue {
        QueueSettings::Sqs { region, prefix, .. } => {
            let partition = partition(region);
            (partition, Some(format!("arn:{partition}:sqs:{region}:*:{prefix}")))
        }
        QueueSettings::Sqlite { .. } => ("aws", None),
    };
    let policies = KINDS.iter().map(|rights| {
        let mut statements =
            bucket.as_ref().map(|bucket| on_bucket(rights, bucket, partition)).unwrap_or_default();
        statements.extend(queues.iter().flat_map(|queues| on_queues(rights, queues)));
        let document = json!({ "Version": "2012-10-17", "Statement": statements });
        (Policy { name: rights.name, whom: rights.whom, document }, statements.is_empty())
    });
    policies.filter(|(_, empty)| !empty).map(|(policy, _)| policy).collect()
}

/// The part of AWS that a region belongs to, which has accounts and names of its own (AWS General
/// Reference, "Amazon Resource Names").
fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

struct Bucket {
    name: String,
    /// Empty, or with a `/` at its end.
    prefix: String,
}

impl Bucket {
    fn of(store: &Url) -> Option<Self> {
        let prefix = store.path().trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Some(Self { name: store.host_str()?.to_owned(), prefix })
    }

    fn arns(&self, partition: &str, keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| format!("arn:{partition}:s3:::{}/{}{key}", self.name, self.prefix)).collect()
    }
}

fn on_bucket(rights: &Rights, bucket: &Bucket, partition: &str) -> Vec<Value> {
    let mut statements = Vec::new();
    if !rights.read.is_empty() {
        statements.push(json!({
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": format!("arn:{partition}:s3:::{}", bucket.name),
            "Condition": { "StringLikeIfExists": { "s3:prefix": format!("{}*", bucket.prefix) } },
        }));
    }
    let mut allow = |sid: &str, action: &str, keys: &[&str], condition: Option<Value>| {
        if keys.is_empty() {
            return;
        }
        let mut statement = json!({ "Sid": sid, "Effect": "Allow", "Action": action, "Resource": bucket.arns(partition, keys) });
        if let Some(condition) = condition {
            statement["Condition"] = condition;
        }
        statements.push(statement);
    };
    allow("Read", "s3:GetObject", rights.read, None);
    allow("Create", "s3:PutObject", rights.create, Some(json!({ "Null": { "s3:if-none-match": "false" } })));
    allow("Write", "s3:PutObject", rights.write, None);
    allow("Delete", "s3:DeleteObject", rights.delete, None);
    statements
}

fn on_queues(rights: &Rights, queues: &str) -> Vec<Value> {
    let allow = |sid: &str, actions: &[&str], queue: &str| {
        let resource = format!("{queues}-{queue}");
        (!actions.is_empty())
            .then(|| json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource }))
    };
    let any = (!rights.any.is_empty())
        .then(|| json!({ "Sid": "AnyQueue", "Effect": "Allow", "Action": rights.any, "Resource": "*" }));
    let ours = [allow("Queues", rights.queues, "*"), allow("Inbox", rights.inbox, "inbox")];
    ours.into_iter().flatten().chain(any).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(store: &str, queue: &str) -> Vec<Policy> {
        policies(&store.parse().expect("url"), &queue.parse().expect("queue"))
    }

    fn named(policies: &[Policy], name: &str) -> String {
        let policy = policies.iter().find(|policy| policy.name == name).expect("there");
        serde_json::to_string_pretty(&policy.document).expect("json")
    }

    #[test]
    fn a_fleet_at_aws_has_a_policy_for_each_kind_of_participant() {
        let policies = of("s3://bucket/team/fleet", "sqs://eu-central-1/haul");
        insta::assert_snapshot!("agent", named(&policies, "agent"));
        insta::assert_snapshot!("producer", named(&policies, "producer"));
        insta::assert_snapshot!("inbox-producer", named(&policies, "inbox-producer"));
        insta::assert_snapshot!("reader", named(&policies, "reader"));
        insta::assert_snapshot!("operator", named(&policies, "operator"));
    }

    #[test]
    fn a_bucket_of_its_own_needs_no_prefix() {
        let agent = named(&of("s3://bucket", "sqlite:/q"), "agent");
        assert!(
            agent.contains(r#""arn:aws:s3:::bucket/jobs/*""#) && agent.contains(r#""s3:prefix": "*""#),
            "{agent}"
        );
        assert!(!agent.contains("sqs:"), "{agent}");
    }

    #[test]
    fn of_other_clouds_only_what_is_known_is_said() {
        let policies = of("gs://bucket/fleet", "sqs://eu-central-1/haul");
        assert!(policies.iter().all(|policy| !policy.document.to_string().contains("s3:")));
        assert_eq!(of("file:///srv/haul", "sqlite"), []);
    }

    #[test]
    fn names_are_those_of_the_region_s_part_of_aws() {
        for (region, partition) in
            [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn"), ("eu-west-1", "aws")]
        {
            for policy in of("s3://bucket/f", &format!("sqs://{region}/haul")) {
                let text = policy.document.to_string();
                let arns: Vec<&str> = text.matches("arn:").collect();
                assert_eq!(text.matches(&format!("arn:{partition}:")).count(), arns.len(), "{text}");
            }
        }
    }

    #[test]
    fn only_an_operator_may_write_settings() {
        for policy in of("s3://bucket/f", "sqs://eu-central-1/haul") {
            let writes =
                policy.document["Statement"].as_array().expect("statements").iter().any(|statement| {
                    statement["Action"] == "s3:PutObject"
                        && statement["Resource"].to_string().contains("f/fleet/")
                });
            assert_eq!(writes, policy.name == "operator", "{}", policy.name);
        }
    }
}
