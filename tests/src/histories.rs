//! The logs of all jobs of a fleet, as they lie in the bucket, and what must hold of them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Bucket;

/// Each job's entries, in order.
pub struct Histories(BTreeMap<String, Vec<Value>>);

impl Histories {
    /// Reads them.
    pub fn read(bucket: &Bucket) -> Self {
        let mut jobs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for key in bucket.list("jobs") {
            let ["jobs", job, "log", _] = key.split('/').collect::<Vec<_>>()[..] else { continue };
            jobs.entry(job.to_owned()).or_default().push(bucket.get(&key).expect("it was listed"));
        }
        Self(jobs)
    }

    /// The jobs.
    pub fn jobs(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// A job's name by its spec.
    pub fn name(&self, job: &str) -> Option<&str> {
        self.0.get(job)?.first()?["event"]["spec"]["name"].as_str()
    }

    /// The events of a kind in a job's log.
    pub fn events(&self, job: &str, kind: &str) -> Vec<&Value> {
        let entries = self.0.get(job).map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(|entry| &entry["event"]).filter(|event| event["kind"] == kind).collect()
    }

    /// How often an attempt of any job ended so.
    pub fn ended(&self, outcome: &str) -> usize {
        let ends = self.0.keys().flat_map(|job| self.events(job, "ended"));
        ends.filter(|end| end["outcome"] == outcome).count()
    }

    /// The nodes whose attempts ended so.
    pub fn nodes_of(&self, outcome: &str) -> Vec<&str> {
        let mut nodes = Vec::new();
        for job in self.0.keys() {
            for end in self.events(job, "ended").into_iter().filter(|end| end["outcome"] == outcome) {
                let claims = self.events(job, "claimed");
                let claim = claims.into_iter().find(|claim| claim["attempt"] == end["attempt"]);
                nodes.extend(claim.and_then(|claim| claim["node"].as_str()));
            }
        }
        nodes
    }

    /// Whether every job has ended.
    pub fn all_ended(&self) -> bool {
        self.0.values().all(|entries| entries.last().is_some_and(is_final))
    }

    /// How many attempts there were in all.
    pub fn attempts(&self) -> usize {
        self.0.keys().map(|job| self.events(job, "claimed").len()).sum()
    }

    /// The jobs that did not succeed exactly once, with what their log says.
    pub fn broken(&self) -> Vec<String> {
        let good = |entries: &[Value]| {
            let in_order = (0u64..).zip(entries).all(|(seq, entry)| entry["seq"] == seq);
            let finals = entries.iter().filter(|entry| is_final(entry)).count();
            let last = entries.last().map(|entry| &entry["event"]);
            in_order
                && finals == 1
                && last.is_some_and(|last| last["outcome"] == "succeeded" && last["next"] == "final")
        };
        let broken = self.0.iter().filter(|(_, entries)| !good(entries));
        broken.map(|(job, entries)| format!("{job}: {}", Value::from(entries.clone()))).collect()
    }
}

/// Whether nothing comes after this entry.
fn is_final(entry: &Value) -> bool {
    let event = &entry["event"];
    match event["kind"].as_str() {
        Some("ended") => event["next"] == "final",
        kind => matches!(kind, Some("cancelled" | "rejected")),
    }
}
