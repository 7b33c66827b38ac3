//! What lies in a fleet's bucket, by plain requests to the emulator: no door counts them, no fault
//! touches them, and no part of haul reads for the tests.

use http::Method;
use http_body_util::Full;
use serde_json::Value;

use crate::{
    Emulator,
    emulator::BUCKET,
    http::{Http, request},
};

/// A fleet's objects.
pub struct Bucket {
    http: Http,
    url: String,
    prefix: String,
}

impl Bucket {
    /// What this emulator has below a prefix.
    pub fn new(emulator: &Emulator, prefix: &str) -> Self {
        let url = format!("{}/{BUCKET}", emulator.url());
        Self { http: Http::default(), url, prefix: prefix.to_owned() }
    }

    /// All keys below a directory, without the fleet's prefix, in order.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let below = format!("{}/", self.prefix);
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("list-type", "2").append_pair("prefix", &format!("{below}{dir}/"));
            if let Some(token) = &token {
                query.append_pair("continuation-token", token);
            }
            let page = self.http.ask(request(Method::GET, &format!("{}?{}", self.url, query.finish())));
            let page = String::from_utf8(page.expect("the bucket is there").into()).expect("XML");
            keys.extend(elements(&page, "Key").map(|key| key.trim_start_matches(&below).to_owned()));
            token = elements(&page, "NextContinuationToken").next().map(str::to_owned);
            if token.is_none() {
                return keys;
            }
        }
    }

    /// An object, as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn get(&self, key: &str) -> Option<Value> {
        let body = self.http.ask(request(Method::GET, &format!("{}/{}/{key}", self.url, self.prefix)))?;
        Some(serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{key} is no JSON: {e}")))
    }

    /// Puts an object that is none of haul's beside the fleet, and gives its URL.
    ///
    /// # Panics
    /// When the emulator does not take it.
    pub fn put(&self, key: &str, body: Vec<u8>) -> String {
        let request = http::Request::put(format!("{}/{key}", self.url));
        self.http.ask(request.body(Full::new(body.into())).expect("a request")).expect("taken");
        format!("s3://{BUCKET}/{key}")
    }

    /// How many jobs have ended, by the index.
    pub fn done(&self) -> usize {
        let mut jobs: Vec<String> = self.list("index/done").iter().filter_map(|key| job_of(key)).collect();
        jobs.sort();
        jobs.dedup();
        jobs.len()
    }
}

/// `index/done/2026-11-24/JOB.1`
fn job_of(key: &str) -> Option<String> {
    Some(key.rsplit('/').next()?.split('.').next()?.to_owned())
}

/// The texts of the elements of this name; none of what is listed here needs an escape.
fn elements<'x>(xml: &'x str, name: &str) -> impl Iterator<Item = &'x str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.match_indices(&open).map(|(at, _)| &xml[at + open.len()..]);
    texts.filter_map(move |rest| rest.split(&close).next()).collect::<Vec<_>>().into_iter()
}
