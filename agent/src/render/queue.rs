//! Queues and dead letters as people see them.

use shared::{
    client::{DeadLetter, QueueReport},
    id::Timestamp,
};

use super::{Out, table::Table, time::ago};

/// A list of queues.
pub fn queues(out: Out, queues: &[QueueReport]) {
    if queues.is_empty() {
        out.line("no queues; the first job makes one");
        return;
    }
    let mut table = Table::new(out, &["QUEUE", ">WAITING", ">IN FLIGHT", ">DELAYED"]);
    for QueueReport { queue, depth } in queues {
        table.row([
            queue.to_string(),
            depth.waiting.to_string(),
            depth.in_flight.to_string(),
            depth.delayed.to_string(),
        ]);
    }
    table.print();
}

/// What came to the inbox and is no job.
pub fn dead_letters(out: Out, letters: &[DeadLetter], now: Timestamp) {
    if letters.is_empty() {
        out.line("no dead letters");
        return;
    }
    for letter in letters {
        out.line(format!("{}  {} ago", letter.id, ago(letter.at, now)));
        for (name, value) in &letter.attributes {
            out.line(format!("    {name}: {value}"));
        }
        out.line(format!("    {}", super::job::one_line(&letter.body)));
    }
}
