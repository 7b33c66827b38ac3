//! What a request to the cloud asks for: which service, which operation, and which actions of IAM
//! that takes (AWS Service Authorization Reference, Amazon S3 and Amazon SQS).

use std::collections::BTreeMap;

use http::{Method, request::Parts};
use serde_json::Value;

/// The services that the emulators stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Amazon S3.
    S3,
    /// Amazon SQS.
    Sqs,
}

/// One right that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `s3:GetObject`
    pub action: String,
    /// An ARN.
    pub resource: String,
    /// What conditions may ask about, by key.
    pub context: BTreeMap<&'static str, String>,
}

/// A request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which service.
    pub service: Service,
    /// The operation, by its name in the service's API.
    pub operation: String,
    /// The rights that it needs.
    pub asks: Vec<Ask>,
    /// What it is about: `index/sent`, `index/sent swept`, `jobs/log`, `nodes`; the queue's name.
    pub topic: String,
}

impl Asked {
    /// Reads a request.
    ///
    /// # Panics
    /// On one that no part of haul makes; then it is new, and belongs here.
    pub fn read(parts: &Parts, body: &[u8]) -> Self {
        match parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
            Some(target) => sqs(target, body),
            None => s3(parts, body),
        }
    }
}

fn ask(action: &str, resource: String) -> Ask {
    Ask { action: action.to_owned(), resource, context: BTreeMap::new() }
}

fn sqs(target: &str, body: &[u8]) -> Asked {
    let operation = target.rsplit('.').next().unwrap_or(target).to_owned();
    let body: Value = serde_json::from_slice(body).expect("SQS is asked in JSON");
    let url = body["QueueUrl"].as_str().and_then(|url| url.rsplit('/').next());
    let queue = url.or(body["QueueName"].as_str()).unwrap_or("*");
    let topic = queue.to_owned();
    let queue = match queue {
        "*" => queue.to_owned(),
        queue => format!("arn:aws:sqs:us-east-1:000000000000:{queue}"),
    };
    // A batch needs the right of its single.
    let action = operation.strip_suffix("Batch").unwrap_or(&operation);
    let mut asks = vec![ask(&format!("sqs:{action}"), queue.clone())];
    if operation == "CreateQueue" && !body["tags"].is_null() {
        asks.push(ask("sqs:TagQueue", queue));
    }
    Asked { service: Service::Sqs, operation, asks, topic }
}

fn s3(parts: &Parts, body: &[u8]) -> Asked {
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let key = url::form_urlencoded::parse(key.replace('+', "%2B").as_bytes())
        .next()
        .map_or(String::new(), |(key, _)| key.into_owned());
    let object = |key: &str| format!("arn:aws:s3:::{bucket}/{key}");
    let (operation, asks) = match (&parts.method, key.is_empty()) {
        (&Method::GET, true) => {
            let mut list = ask("s3:ListBucket", format!("arn:aws:s3:::{bucket}"));
            list.context.extend(query.get("prefix").map(|prefix| ("s3:prefix", prefix.clone())));
            ("ListObjectsV2", vec![list])
        }
        (&Method::GET, false) => ("GetObject", vec![ask("s3:GetObject", object(&key))]),
        (&Method::HEAD, false) => ("HeadObject", vec![ask("s3:GetObject", object(&key))]),
        (&Method::PUT, false) => {
            let mut put = ask("s3:PutObject", object(&key));
            let condition = parts.headers.get("if-none-match").and_then(|value| value.to_str().ok());
            put.context.extend(condition.map(|value| ("s3:if-none-match", value.to_owned())));
            ("PutObject", vec![put])
        }
        (&Method::PUT, true) => {
            ("CreateBucket", vec![ask("s3:CreateBucket", format!("arn:aws:s3:::{bucket}"))])
        }
        (&Method::DELETE, false) => ("DeleteObject", vec![ask("s3:DeleteObject", object(&key))]),
        (&Method::POST, true) if query.contains_key("delete") => {
            let keys = keys_of(&String::from_utf8_lossy(body));
            ("DeleteObjects", keys.iter().map(|key| ask("s3:DeleteObject", object(key))).collect())
        }
        (method, _) => panic!("a request that nobody made before: {method} {}", parts.uri),
    };
    let prefix = query.get("prefix").map_or("", String::as_str);
    let topic = if key.is_empty() { topic(prefix, true) } else { topic(&key, false) };
    Asked { service: Service::S3, operation: operation.to_owned(), asks, topic }
}

/// Which of a fleet's directories a key is in, whatever the fleet's own prefix.
fn topic(key: &str, is_list: bool) -> String {
    let mut parts = key.split('/').skip_while(|part| !DIRECTORIES.contains(part));
    match (parts.next(), parts.next(), parts.next()) {
        // A whole shelf, or a lane's of all teams, is looked at by sweeps alone.
        (Some("index"), Some(shelf), None) => format!("index/{shelf} swept"),
        (Some("index"), Some("held"), Some(_)) if is_list => "index/held swept".to_owned(),
        (Some("index"), Some(shelf), Some(_)) if is_list && parts.next().is_none_or(str::is_empty) => {
            format!("index/{shelf} swept")
        }
        (Some("index"), Some(shelf), Some(_)) => format!("index/{shelf}"),
        (Some("jobs"), _, Some("attempts")) => "jobs/output".to_owned(),
        (Some("jobs"), _, _) => "jobs/log".to_owned(),
        (Some(directory), _, _) => directory.to_owned(),
        (None, _, _) => String::new(),
    }
}

/// The first level of a fleet's objects.
const DIRECTORIES: [&str; 5] = ["fleet", "index", "jobs", "lanes", "nodes"];

/// The keys in the body of a `DeleteObjects`; those of haul need no XML escapes.
fn keys_of(body: &str) -> Vec<String> {
    let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
    keys.map(str::to_owned).collect()
}
