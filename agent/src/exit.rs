//! From an error to what a person reads and the exit code: what failed, on what, what to do.

use std::process::ExitCode;

use shared::{
    client::ClientError,
    fleet::FleetError,
    job::SpecError,
    log::LogError,
    store::{ProbeError, StoreError},
};

use crate::{config::ConfigError, engine::EngineError};

/// The job is not there.
const NOT_FOUND: u8 = 3;
/// The request made no sense.
const USAGE: u8 = 2;
/// The request failed.
const FAILED: u8 = 1;

/// A request that makes no sense, for which clap has no check.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints the error with its causes and, where there is one, the next step.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !said.contains(&text) {
            eprintln!("  because: {text}");
        }
        said = text;
    }
    if let Some(hint) = hint(error) {
        eprintln!("  hint: {hint}");
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(ClientError::NotFound(_) | ClientError::NoSuchNode(_)) = cause.downcast_ref() {
            return NOT_FOUND;
        }
        let usage = cause.is::<Usage>()
            || cause.is::<SpecError>()
            || cause.is::<ConfigError>()
            || matches!(cause.downcast_ref(), Some(FleetError::Setting(_)))
            || matches!(cause.downcast_ref(), Some(ClientError::Ambiguous { .. } | ClientError::IdInUse(_)));
        if usage {
            return USAGE;
        }
    }
    FAILED
}

/// The store's error within another that only hands it on, which a chain of causes leaves out.
fn store_error<'e>(cause: &'e (dyn std::error::Error + 'static)) -> Option<&'e StoreError> {
    let of_fleet = |error: &'e FleetError| match error {
        FleetError::Store(error) => Some(error),
        _ => None,
    };
    let of_log = |error: &'e LogError| match error {
        LogError::Store(error) => Some(error),
        LogError::Record { .. } | LogError::Fold(_) => None,
    };
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return match error {
            ClientError::Store(error) => Some(error),
            ClientError::Fleet(error) => of_fleet(error),
            ClientError::Log(error) => of_log(error),
            _ => None,
        };
    }
    let direct = cause.downcast_ref::<StoreError>();
    direct
        .or_else(|| cause.downcast_ref().and_then(of_fleet))
        .or_else(|| cause.downcast_ref().and_then(of_log))
        .or_else(|| match cause.downcast_ref() {
            Some(ProbeError::Store(error)) => Some(error),
            _ => None,
        })
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(EngineError::Unreachable { .. }) = cause.downcast_ref() {
            return Some("haul doctor checks the engine and the rest of this host");
        }
        match store_error(cause) {
            Some(StoreError::Denied { .. } | StoreError::Directory { .. }) => {
                return Some(
                    "check who owns the store and who you are; --fleet or HAUL_FLEET names another fleet",
                );
            }
            Some(StoreError::Unavailable { .. }) => {
                return Some("haul doctor checks the store and the queue");
            }
            Some(StoreError::BadUrl { .. } | StoreError::Clock { .. }) | None => {}
        }
        match cause.downcast_ref::<FleetError>() {
            Some(FleetError::NoFleet(_)) => Some("--fleet or HAUL_FLEET names another fleet"),
            _ => None,
        }
    })
}
