//! What a simulated container does, written into its job's command.

use std::time::Duration;

use shared::job::JobSpec;

/// A container's run.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// How long it runs, time in which it is frozen not counted.
    pub runs: Duration,
    /// Its exit code then.
    pub exit: i64,
    /// How many lines it prints, evenly spread.
    pub lines: u32,
    /// It does not hear SIGTERM.
    pub deaf: bool,
}

impl Script {
    /// As a command.
    pub fn command(&self) -> Vec<String> {
        let millis = self.runs.as_millis();
        [format!("{millis}"), self.exit.to_string(), self.lines.to_string(), self.deaf.to_string()].into()
    }

    /// From a command.
    pub fn read(command: &[String]) -> Option<Self> {
        let [millis, exit, lines, deaf] = command else { return None };
        Some(Self {
            runs: Duration::from_millis(millis.parse().ok()?),
            exit: exit.parse().ok()?,
            lines: lines.parse().ok()?,
            deaf: deaf.parse().ok()?,
        })
    }

    /// A job that does this.
    pub fn job(&self) -> JobSpec {
        let mut spec = JobSpec::new("sim");
        spec.command = Some(self.command());
        spec
    }

    /// When, in its run, a line is printed.
    pub fn line_at(&self, line: u32) -> Duration {
        self.runs * line / (self.lines + 1)
    }
}
