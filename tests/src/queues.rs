//! A fleet's queues, by plain requests to the emulator, as an operator's console would make them.

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{Emulator, http::Http};

/// The queues whose names begin with a prefix.
pub struct Queues {
    http: Http,
    url: String,
    prefix: String,
}

impl Queues {
    /// Those of this emulator.
    pub fn new(emulator: &Emulator, prefix: &str) -> Self {
        Self { http: Http::default(), url: emulator.url(), prefix: prefix.to_owned() }
    }

    fn ask(&self, action: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(Full::from(body.to_string()))
            .expect("a valid request");
        let answer = self.http.ask(request).unwrap_or_else(|| panic!("{action} {body}: 404"));
        if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer).expect("JSON") }
    }

    /// The addresses of all that there are.
    pub fn all(&self) -> Vec<String> {
        let listed = self.ask("ListQueues", &json!({ "QueueNamePrefix": format!("{}-", self.prefix) }));
        let urls = listed["QueueUrls"].as_array().cloned().unwrap_or_default();
        urls.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Those of lanes.
    pub fn lanes(&self) -> Vec<String> {
        let fleet = ["inbox", "dead", "status"].map(|name| format!("/{}-{name}", self.prefix));
        self.all().into_iter().filter(|url| !fleet.iter().any(|own| url.ends_with(own))).collect()
    }

    /// The inbox, once an agent has made it.
    pub fn inbox(&self) -> Option<String> {
        let end = format!("/{}-inbox", self.prefix);
        self.all().into_iter().find(|url| url.ends_with(&end))
    }

    /// Whether none of them has a message.
    pub fn are_empty(&self) -> bool {
        self.all().iter().all(|url| self.depth(url) == 0)
    }

    /// How many messages a queue has, hidden ones too.
    pub fn depth(&self, queue: &str) -> u64 {
        let names = ["", "NotVisible", "Delayed"].map(|kind| format!("ApproximateNumberOfMessages{kind}"));
        let found =
            self.ask("GetQueueAttributes", &json!({ "QueueUrl": queue, "AttributeNames": names.clone() }));
        let number = |name: &String| found["Attributes"][name].as_str()?.parse::<u64>().ok();
        names.iter().filter_map(number).sum()
    }

    /// Deletes all messages of a queue.
    pub fn purge(&self, queue: &str) {
        self.ask("PurgeQueue", &json!({ "QueueUrl": queue }));
    }
}
