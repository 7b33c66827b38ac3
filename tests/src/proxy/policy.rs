//! What a policy of IAM allows: as much of its language as the policies that haul prints use, and
//! no other word of it is passed over in silence (IAM User Guide, "IAM JSON policy elements").

use serde_json::Value;

use super::request::Ask;

/// Whether a statement allows what is asked.
///
/// # Panics
/// On what is not understood.
pub fn allows(policy: &Value, ask: &Ask) -> bool {
    let statements = policy["Statement"].as_array().expect("a policy has statements");
    statements.iter().any(|statement| {
        let fields = statement.as_object().expect("a statement is an object");
        for (name, value) in fields {
            match name.as_str() {
                "Sid" | "Action" | "Resource" | "Condition" => {}
                "Effect" => assert_eq!(value, "Allow", "only Allow is understood"),
                other => panic!("{other} is not understood"),
            }
        }
        texts(&statement["Action"]).iter().any(|action| like(action, &ask.action))
            && texts(&statement["Resource"]).iter().any(|resource| like(resource, &ask.resource))
            && fields.get("Condition").is_none_or(|condition| holds(condition, ask))
    })
}

/// A text, or several.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().expect("a text")).collect(),
        value => vec![value.as_str().expect("a text")],
    }
}

fn holds(condition: &Value, ask: &Ask) -> bool {
    let operators = condition.as_object().expect("conditions by operator");
    operators.iter().all(|(operator, keys)| {
        let keys = keys.as_object().expect("values by key");
        keys.iter().all(|(key, expected)| {
            let given = ask.context.get(key.as_str());
            match operator.as_str() {
                "StringLike" => {
                    given.is_some_and(|given| texts(expected).iter().any(|text| like(text, given)))
                }
                "StringLikeIfExists" => {
                    given.is_none_or(|given| texts(expected).iter().any(|text| like(text, given)))
                }
                "Null" => texts(expected) == [if given.is_none() { "true" } else { "false" }],
                other => panic!("the operator {other} is not understood"),
            }
        })
    })
}

/// `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}
