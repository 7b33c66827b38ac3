//! A fleet's queue as people write it: `sqlite`, `sqlite:/path/to/file`, `sqs://REGION/PREFIX`.

use std::{path::PathBuf, str::FromStr};

use url::Url;

use super::PrefixError;
use crate::fleet::QueueSettings;

/// A text that names no queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Of no form that there is.
    #[error(
        "{0:?} names no queue: write sqs://REGION/PREFIX (and ?endpoint=URL for a service that is not AWS), \
         sqlite, or sqlite:/path/to/file"
    )]
    Form(String),
    /// Not something that names of queues can begin with.
    #[error("the prefix in {text:?} cannot be used")]
    Prefix {
        /// The text as given.
        text: String,
        /// The rule that it broke.
        #[source]
        source: PrefixError,
    },
    /// The endpoint is no URL.
    #[error("the endpoint in {text:?} is no http or https URL")]
    Endpoint {
        /// The text as given.
        text: String,
    },
}

impl FromStr for QueueSettings {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "sqlite" {
            return Ok(Self::Sqlite { path: None });
        }
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite { path: Some(PathBuf::from(path)) });
        }
        sqs(text)
    }
}

fn sqs(text: &str) -> Result<QueueSettings, AddressError> {
    let form = || AddressError::Form(text.to_owned());
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "sqs").ok_or_else(form)?;
    let region = url.host_str().filter(|_| url.port().is_none() && url.username().is_empty());
    let region = region.ok_or_else(form)?.to_owned();
    let prefix = url.path().strip_prefix('/').filter(|prefix| !prefix.is_empty()).ok_or_else(form)?;
    let prefix = prefix.parse().map_err(|source| AddressError::Prefix { text: text.to_owned(), source })?;
    let mut endpoint = None;
    for (name, value) in url.query_pairs() {
        if name != "endpoint" {
            return Err(form());
        }
        let valid = Url::parse(&value).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        endpoint = Some(valid.ok_or_else(|| AddressError::Endpoint { text: text.to_owned() })?);
    }
    Ok(QueueSettings::Sqs { region, prefix, endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<QueueSettings, String> {
        text.parse().map_err(|e: AddressError| {
            let source = std::error::Error::source(&e).map(|source| format!(": {source}"));
            format!("{e}{}", source.unwrap_or_default())
        })
    }

    #[test]
    fn each_kind_of_queue_has_a_form() {
        assert_eq!(read("sqlite"), Ok(QueueSettings::Sqlite { path: None }));
        assert_eq!(read("sqlite:/q"), Ok(QueueSettings::Sqlite { path: Some("/q".into()) }));
        let sqs = |endpoint: Option<&str>| QueueSettings::Sqs {
            region: "eu-central-1".into(),
            prefix: "haul".parse().expect("valid"),
            endpoint: endpoint.map(|url| url.parse().expect("url")),
        };
        assert_eq!(read("sqs://eu-central-1/haul"), Ok(sqs(None)));
        let local = "http://127.0.0.1:5000";
        assert_eq!(read(&format!("sqs://eu-central-1/haul?endpoint={local}")), Ok(sqs(Some(local))));
    }

    #[test]
    fn what_names_no_queue_is_told_the_form() {
        for text in
            ["", "sqs", "sqs://", "sqs://eu-central-1", "sqs://eu-central-1/", "https://x/y", "sqs://r/p?x=1"]
        {
            let error = read(text).expect_err("names no queue");
            assert!(error.contains("write sqs://REGION/PREFIX"), "{error}");
        }
        let error = read("sqs://eu-central-1/a/b").expect_err("no prefix");
        assert!(error.contains("use 1 to 19 of"), "{error}");
        let error = read("sqs://eu-central-1/a?endpoint=localhost:9").expect_err("no url");
        assert!(error.contains("no http or https URL"), "{error}");
    }
}
