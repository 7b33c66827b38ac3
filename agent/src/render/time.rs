//! Times as people read them.

use std::time::Duration;

use chrono::Local;
use shared::id::Timestamp;

/// `3s`, `12m`, `5h`, `2d`: how long ago.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    span((now - then).to_std().unwrap_or_default())
}

/// A duration with at most two units: `1m 5s`, `2h 3m`, `4d 2h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, name) in units {
        if rest >= size || (size == 1 && parts.is_empty()) {
            parts.push(format!("{}{name}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if seconds == 0 && duration.as_millis() > 0 {
        return format!("{}ms", duration.as_millis());
    }
    parts.join(" ")
}

/// Date and time here.
pub fn local(time: Timestamp) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, "0s")]
    #[case(59, "59s")]
    #[case(65, "1m 5s")]
    #[case(3600, "1h")]
    #[case(7380, "2h 3m")]
    #[case(90061, "1d 1h")]
    fn durations_are_short(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}
