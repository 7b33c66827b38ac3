//! A fleet's settings as people see them.

use shared::fleet::Version;
use url::Url;

use super::{Out, table::Table, time::local};

/// The settings that hold.
pub fn settings(out: Out, version: &Version, fleet: &Url) {
    let mut table = Table::new(out, &["SETTING", "VALUE"]);
    table.row(["fleet".to_owned(), fleet.to_string()]);
    for (key, value) in version.settings.pairs() {
        table.row([key, value]);
    }
    table.print();
}

/// What was changed, by whom and when.
pub fn settings_history(out: Out, history: &[Version]) {
    let mut before: Vec<(String, String)> = Vec::new();
    for version in history {
        let when = version.at.map_or_else(|| "-".to_owned(), local);
        let by = version.author.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        out.line(format!("{}  {when}  {by}", version.seq.0));
        let pairs = version.settings.pairs();
        for (key, value) in pairs.iter().filter(|pair| !before.contains(pair)) {
            out.line(format!("    {key} = {value}"));
        }
        before = pairs;
    }
}
