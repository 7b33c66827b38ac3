//! Changing a fleet's settings: each change is the next entry of their log, by put-if-absent, so
//! that of two people who change them at once each sees what the other did before deciding.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FleetError, Settings, key, newest, seq_of, unreadable};
use crate::{
    id::{Seq, Timestamp},
    log::Author,
    record,
    store::{Created, Store},
    units::Span,
};

/// Settings as they are stored, with who made them and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Their position.
    #[serde(default = "first")]
    pub seq: Seq,
    /// Who made them, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,
    /// When, by the author's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What they are.
    #[serde(flatten)]
    pub settings: Settings,
}

fn first() -> Seq {
    Seq::FIRST
}

/// A setting that cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct SettingError {
    /// Which.
    pub key: String,
    /// What it was to be.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl Settings {
    fn as_map(&self) -> serde_json::Map<String, Value> {
        match serde_json::to_value(self).expect("settings have only text keys") {
            Value::Object(map) => map,
            other => unreachable!("settings are a record, not {other}"),
        }
    }

    /// The settings with their values, as `haul fleet show` lists them and `set` takes them.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        self.as_map()
            .into_iter()
            .filter(|(key, _)| key != "v")
            .map(|(key, value)| (key, text(value)))
            .collect()
    }

    /// These settings with one of them changed: a number, a truth value, a duration, or JSON.
    /// Rules that concern several are checked by [`Settings::check`].
    ///
    /// # Errors
    /// [`SettingError`] for an unknown setting, or a value that it cannot have.
    pub fn with(&self, key: &str, text: &str) -> Result<Self, SettingError> {
        let error = |allowed: String| SettingError { key: key.into(), value: text.into(), allowed };
        let mut map = self.as_map();
        if key == "v" || !map.contains_key(key) {
            let known: Vec<String> = self.pairs().into_iter().map(|(key, _)| key).collect();
            return Err(error(format!("there is no such setting; there are {}", known.join(", "))));
        }
        // A duration is text and `3` is a number; which of them is meant, the setting's type says.
        let json = serde_json::from_str(text).ok();
        let mut first = None;
        for value in json.into_iter().chain([Value::String(text.into())]) {
            map.insert(key.into(), value);
            match serde_json::from_value(Value::Object(map.clone())) {
                Ok(settings) => return Ok(settings),
                Err(e) => first = first.or(Some(e)),
            }
        }
        Err(error(first.map_or_else(String::new, |e| e.to_string())))
    }

    /// Whether these settings can hold together.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), SettingError> {
        let rule = |ok: bool, key: &str, value: String, allowed: &str| match ok {
            true => Ok(()),
            false => Err(SettingError { key: key.into(), value, allowed: allowed.into() }),
        };
        let within = |span: Span, from: &str, to: &str| {
            let edge = |text: &str| text.parse::<Span>().expect("a duration");
            (edge(from)..=edge(to)).contains(&span)
        };
        let Self { beat, lease, lane_refresh, sweep, window, patience, reserve_max, .. } = self;
        rule(within(*beat, "100ms", "60s"), "beat", beat.to_string(), "100ms to 60s")?;
        // A follower must miss several beats before it takes over, and a node must have time to
        // freeze before that: it does so two beats ahead of the lease's end.
        let enough = lease.0 >= beat.0 * 4;
        rule(enough, "lease", lease.to_string(), "at least four times the beat")?;
        rule(within(*lease, "1s", "1h"), "lease", lease.to_string(), "1s to 1h")?;
        rule(
            within(*lane_refresh, "100ms", "10m"),
            "lane_refresh",
            lane_refresh.to_string(),
            "100ms to 10m",
        )?;
        rule(within(*sweep, "1s", "1h"), "sweep", sweep.to_string(), "1s to 1h")?;
        rule((1..=10_000).contains(window), "window", window.to_string(), "1 to 10000")?;
        rule(within(*patience, "1s", "1d"), "patience", patience.to_string(), "1s to 1d")?;
        // SQS hides a message for twelve hours at most, and the job's is kept hidden meanwhile.
        let longest = within(*reserve_max, "1s", "10h");
        rule(longest, "reserve_max", reserve_max.to_string(), "1s to 10h")?;
        let policy = &self.policy;
        let platform = policy.platform_retries;
        rule(platform <= 1000, "platform_retries", platform.to_string(), "0 to 1000")?;
        rule(policy.again <= 1_000_000, "again", policy.again.to_string(), "0 to 1000000")?;
        for (i, webhook) in self.webhooks.iter().enumerate() {
            let fault = webhook.fault();
            let key = format!("webhooks[{i}].url");
            rule(fault.is_none(), &key, webhook.url.to_string(), fault.unwrap_or_default())?;
            let twice = self.webhooks[..i].iter().any(|other| other.url == webhook.url);
            rule(!twice, &key, webhook.url.to_string(), "each address once")?;
        }
        for (i, row) in self.prices.iter().enumerate() {
            let value = serde_json::to_value(row).expect("a tariff has only text keys").to_string();
            rule(!row.labels.is_empty(), &format!("prices[{i}].labels"), value, "at least one")?;
        }
        for (name, pool) in &self.pools {
            if let Some((field, allowed)) = pool.fault() {
                let value = serde_json::to_value(pool).expect("pools have only text keys")[field].to_string();
                rule(false, &format!("pools.{name}.{field}"), value, allowed)?;
            }
        }
        Ok(())
    }
}

/// Decides on the settings as they are and makes the result the newest ones; when somebody else
/// was faster, decides again on theirs. Nothing is written where nothing changes.
///
/// # Errors
/// What `decide` says, [`FleetError::NoFleet`], [`FleetError`]
pub async fn change<E: From<FleetError>>(
    store: &Store,
    author: &Author,
    now: Timestamp,
    mut decide: impl FnMut(&Settings) -> Result<Settings, E>,
) -> Result<Version, E> {
    loop {
        let newest = newest(store).await?;
        let (seq, before) = newest.ok_or_else(|| FleetError::NoFleet(store.url().clone()))?;
        let settings = decide(&before)?;
        let (author, at) = (Some(author.clone()), Some(now));
        if settings == before {
            return Ok(Version { seq, author: None, at: None, settings });
        }
        let version = Version { seq: seq.next(), author, at, settings };
        let body = record::write(&version);
        match store.create(&key(version.seq), body.clone()).await.map_err(FleetError::from)? {
            Created::New => return Ok(version),
            Created::Exists(found) if found == body => return Ok(version),
            Created::Exists(_) => {}
        }
    }
}

/// All settings that ever held, oldest first; the last hold now.
///
/// # Errors
/// [`FleetError`]
pub async fn history(store: &Store) -> Result<Vec<Version>, FleetError> {
    let mut history = Vec::new();
    for key in store.list("fleet").await? {
        let Some(seq) = seq_of(&key) else { continue };
        let Some(body) = store.get(&key).await? else { continue };
        let version: Version =
            record::read(&body, Settings::VERSION).map_err(|e| unreadable(store, &key, e))?;
        history.push(Version { seq, ..version });
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn settings() -> Settings {
        Settings::embedded(None)
    }

    #[rstest]
    #[case("window", "3", "3")]
    #[case("beat", "15s", "15s")]
    #[case("status", "true", "true")]
    #[case("platform_retries", "7", "7")]
    #[case("queue", r#"{"kind":"sqlite","path":"/q"}"#, r#"{"kind":"sqlite","path":"/q"}"#)]
    fn a_setting_is_read_by_its_own_type(#[case] key: &str, #[case] text: &str, #[case] shown: &str) {
        let after = settings().with(key, text).expect("allowed");
        assert!(after.pairs().contains(&(key.to_owned(), shown.to_owned())));
    }

    #[rstest]
    #[case("speed", "3", "there is no such setting; there are queue, beat, lease")]
    #[case("v", "3", "there is no such setting")]
    #[case("window", "many", "invalid type")]
    #[case("beat", "3", "invalid type")]
    #[case("webhooks", r#"[{"url":"https://x","secret":"S","events":["job.claimd"]}]"#, "job.claimd")]
    #[case("prices", r#"[{"labels":{"provider":"aws"},"price":"1$"}]"#, "as in 2.40USD")]
    fn what_a_setting_cannot_be_is_said(#[case] key: &str, #[case] text: &str, #[case] said: &str) {
        let error = settings().with(key, text).expect_err("refused").to_string();
        assert!(error.contains(said) && error.contains(key), "{error}");
    }

    #[rstest]
    #[case("lease", "3s", "at least four times the beat")]
    #[case("beat", "2m", "100ms to 60s")]
    #[case("window", "0", "1 to 10000")]
    #[case("sweep", "0s", "1s to 1h")]
    #[case("webhooks", r#"[{"url":"ftp://x","secret":"S"}]"#, "begins with https://")]
    #[case("prices", r#"[{"labels":{},"price":"1USD"}]"#, "at least one")]
    fn settings_must_hold_together(#[case] key: &str, #[case] text: &str, #[case] said: &str) {
        let error = settings().with(key, text).and_then(|after| after.check()).expect_err("refused");
        assert!(error.to_string().contains(said), "{error}");
    }

    #[tokio::test]
    async fn of_two_changes_at_once_neither_is_lost() {
        let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
        super::super::create(&store, Settings::embedded(Some("/q".into()))).await.expect("created");
        let change = |key: &'static str, text: &'static str| {
            let store = store.clone();
            async move {
                let author = Author::Client("ann@desk".into());
                change(&store, &author, Timestamp::UNIX_EPOCH, |before| {
                    before.with(key, text).map_err(|e| FleetError::Setting(Box::new(e)))
                })
                .await
            }
        };
        let (a, b) = futures::join!(change("window", "3"), change("sweep", "2m"));
        a.expect("changed");
        b.expect("changed");
        let history = history(&store).await.expect("reads");
        let now = &history.last().expect("some").settings;
        assert_eq!((history.len(), now.window, now.sweep), (3, 3, Span::secs(120)));
        assert_eq!(history[1].author, Some(Author::Client("ann@desk".into())));
        let same = change("window", "3").await.expect("nothing to do");
        assert_eq!(same.seq, Seq(2), "nothing is written where nothing changes");
    }
}
