//! What Terraform sets up is what haul means: its policies, the names of its queues, the machines' user-data.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use shared::queue::{MAX_MESSAGE, MAX_WAIT, QueueName};
use tests::{World, world::root};

fn text(name: &str) -> String {
    let path = root().join("packaging").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// As `templatefile` fills it in.
fn filled(template: &str, values: &[(&str, &str)]) -> Value {
    let put = |text: String, (name, value): &(&str, &str)| text.replace(&format!("${{{name}}}"), value);
    let text = values.iter().fold(template.to_owned(), put);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("no policy ({e}): {text}"))
}

#[test]
fn policies_are_those_that_haul_prints() {
    let world = World::new();
    let fleets = [
        ("aws", "fleet-bucket", "fleet/", "eu-central-1", "haul"),
        ("aws-us-gov", "b", "team/fleet/", "us-gov-west-1", "team_a"),
        ("aws-cn", "b", "", "cn-north-1", "h"),
    ];
    for (partition, bucket, prefix, region, queues) in fleets {
        let store = format!("s3://{bucket}/{prefix}");
        let queue = format!("sqs://{region}/{queues}");
        let printed =
            world.json(["init", store.trim_end_matches('/'), "--queue", &queue, "--policies", "--json"]);
        let printed = printed.as_array().expect("policies");
        assert_eq!(printed.len(), 5);
        for policy in printed {
            let name = policy["name"].as_str().expect("a name");
            let template = text(&format!("terraform/aws/policies/{name}.json.tftpl"));
            let values = [
                ("partition", partition),
                ("bucket", bucket),
                ("prefix", prefix),
                ("region", region),
                ("queues", queues),
            ];
            assert_eq!(filled(&template, &values), policy["document"], "{name} of {store} and {queue}");
            // Each is made.
            let whom = policy["whom"].as_str().expect("a text");
            let kinds = text("terraform/aws/policies.tf");
            let line = kinds.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
            assert!(line.is_some_and(|line| line.contains(&json!(whom).to_string())), "{name}: {line:?}");
        }
    }
    let there = fs::read_dir(root().join("packaging/terraform/aws/policies")).expect("a directory").count();
    assert_eq!(there, 5);
}

#[test]
fn queues_are_named_as_haul_names_them() {
    let variables = text("terraform/aws/variables.tf");
    for name in [QueueName::Inbox, QueueName::Dead, QueueName::Status] {
        assert!(variables.contains(&format!("\"{name}\"")), "{name}");
    }
    let made = text("terraform/aws/queues.tf");
    let size = format!("max_message_size           = {MAX_MESSAGE}");
    let wait = format!("receive_wait_time_seconds  = {}", MAX_WAIT.as_secs());
    assert!(made.contains(&size) && made.contains(&wait), "{made}");
}

#[test]
fn each_line_of_the_user_data_that_is_edited_is_there() {
    let user_data = text("cloud-init/aws.yaml");
    let lines: BTreeSet<&str> = user_data.lines().map(str::trim).collect();
    let group = text("terraform/aws/group.tf");
    let edits =
        group.split_once("edits = {").and_then(|(_, rest)| rest.split_once("\n  }")).expect("edits").0;
    let edited: Vec<&str> = edits
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" "))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(edited.len(), 6, "{edits}");
    for line in edited {
        assert!(lines.contains(line), "{line:?} is not in the user-data");
    }
}
