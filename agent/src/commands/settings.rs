//! `haul fleet show`, `haul fleet set`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use shared::{
    fleet::{self, FleetError, Settings},
    store::Store,
};

use super::{Context, author};
use crate::{
    cli::{FleetSet, FleetShow},
    config::default_fleet,
    exit::Usage,
    render,
};

impl Context {
    /// The fleet's store alone, for what must work when its queue does not.
    fn store(&self) -> Result<Store> {
        Ok(Store::open(&self.fleet.clone().unwrap_or_else(default_fleet))?)
    }
}

/// `haul fleet show`
pub async fn show(context: &Context, args: &FleetShow) -> Result<ExitCode> {
    let store = context.store()?;
    let mut history = fleet::history(&store).await?;
    if history.is_empty() {
        // A directory becomes a fleet on first use.
        context.client().await?;
        history = fleet::history(&store).await?;
    }
    let now = history.last().ok_or_else(|| FleetError::NoFleet(store.url().clone()))?;
    match (args.json, args.history) {
        (true, true) => context.out.json(&history),
        (true, false) => context.out.json(now),
        (false, true) => render::settings_history(context.out, &history),
        (false, false) => render::settings(context.out, now, store.url()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `KEY=VALUE`, or `KEY=@FILE` for what a file says.
fn setting(pair: &str) -> Result<(&str, String)> {
    let (key, value) = pair.split_once('=').ok_or_else(|| Usage(format!("{pair}: write KEY=VALUE")))?;
    let value = match value.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("{key}: cannot read {file}"))?,
        None => value.to_owned(),
    };
    Ok((key, value))
}

/// `haul fleet set`
pub async fn set(context: &Context, args: &FleetSet) -> Result<ExitCode> {
    let pairs: Vec<(&str, String)> = args.pairs.iter().map(|pair| setting(pair)).collect::<Result<_>>()?;
    let decide = |before: &Settings| -> Result<Settings, FleetError> {
        let mut after = before.clone();
        for (key, text) in &pairs {
            after = after.with(key, text).map_err(Box::new).map_err(FleetError::Setting)?;
        }
        after.check().map_err(Box::new).map_err(FleetError::Setting)?;
        Ok(after)
    };
    let store = context.store()?;
    if store.directory().is_some() {
        // A directory becomes a fleet on first use.
        context.client().await?;
    }
    let before = fleet::history(&store).await?.pop();
    let version = fleet::change(&store, &author(), context.now(), decide).await?;
    if before.as_ref().is_some_and(|before| before.seq == version.seq) {
        eprintln!("these settings hold already");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("settings {} of {}; agents go by them within a minute", version.seq.0, store.url());
    if before.is_some_and(|before| before.settings.queue != version.settings.queue) {
        eprintln!("warning: the queue is another one now; restart every agent");
    }
    Ok(ExitCode::SUCCESS)
}
