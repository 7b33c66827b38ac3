//! Waiting out an outage. What an agent must write, it writes, however long the store or the
//! queue is away; each pause is longer than the last, up to half a minute.

use std::{fmt, time::Duration};

/// The pauses between attempts at something that must succeed.
#[derive(Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// Notes a failure, says so, and pauses.
    pub async fn wait(&mut self, what: &str, error: &(dyn std::error::Error + Send + Sync)) {
        tracing::warn!(error = %Chain(error), failures = self.failures + 1, "cannot write or read {what}; trying again");
        let pause = Duration::from_millis(250) * 2u32.saturating_pow(self.failures.min(7));
        self.failures += 1;
        tokio::time::sleep(pause.min(Duration::from_secs(30))).await;
    }
}

/// Does it until it succeeds.
pub async fn insist<T, E, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut patience = Patience::default();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => patience.wait(what, &error).await,
        }
    }
}

/// An error with its causes, on one line.
pub struct Chain<'e>(pub &'e (dyn std::error::Error + Send + Sync));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
