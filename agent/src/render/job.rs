//! Jobs as people see them.

use std::fmt::Write;

use owo_colors::OwoColorize;
use serde_json::json;
use shared::{
    client::{NodeFit, PrefetchingOn, ReservedOn, Status, Verdict, Waiting},
    id::Timestamp,
    index::Summary,
    lane::When,
    log::{Entry, Event, Job, Next, State},
    node::Prefetching,
};

use super::{
    Out,
    table::{Table, phase},
    time::{ago, local, span},
    usage,
};

/// A list of jobs.
pub fn jobs(out: Out, jobs: &[Summary], now: Timestamp) {
    if jobs.is_empty() {
        out.line("no jobs; haul submit JOB makes one, haul ps --all lists those that finished long ago");
        return;
    }
    let mut table =
        Table::new(out, &["ID", "NAME", "TEAM", "STATE", ">FOR", ">ATTEMPT", "NODE", ">GPUS", ">EXIT"]);
    for job in jobs {
        let blank = String::new;
        table.row([
            job.id.to_string(),
            job.name.clone(),
            job.team.to_string(),
            phase(out, job.state),
            ago(job.since, now),
            job.attempt.map_or_else(blank, |attempt| attempt.to_string()),
            job.node.as_ref().map_or_else(blank, ToString::to_string),
            if job.gpus.is_empty() { blank() } else { job.gpus.len().to_string() },
            job.exit_code.map_or_else(blank, |code| code.to_string()),
        ]);
    }
    table.print();
}

/// Whatever is known of one job.
pub fn status(out: Out, status: &Status, now: Timestamp) {
    let job = &status.job;
    let field = |name: &str, value: String| out.line(format!("{name:<10} {value}"));
    field("job", job.id.to_string());
    field("name", job.spec.display_name().to_owned());
    field("state", format!("{}{}", phase(out, status.phase), reason(job)));
    field("image", job.spec.image.clone());
    if let Some(command) = &job.spec.command {
        field("command", one_line(&command.join(" ")));
    }
    field("needs", shared::lane::Needs::of(&job.spec).to_string());
    field("lane", job.lane.to_string());
    field("team", format!("{}, {} priority", job.spec.team, job.spec.priority));
    field("submitted", format!("{} ({} ago)", local(job.submitted_at), ago(job.submitted_at, now)));
    if let State::Held(claim) = &job.state {
        field("node", claim.node.to_string());
        for gpu in &claim.gpus {
            field("gpu", gpu.to_string());
        }
        if let Some(started) = &claim.started {
            field("container", started.container.chars().take(12).collect());
        }
    }
    if let Some(warning) = &status.warning {
        field("warning", warning.clone());
    }
    if let Some(waiting) = &status.waiting {
        out.line("");
        explain(out, waiting, now);
    }
    out.line("");
    out.line("history");
    let mut before: Option<Timestamp> = None;
    for entry in &status.history {
        let gap = before.map_or_else(String::new, |before| format!("+{}", ago(before, entry.at)));
        before = Some(entry.at);
        out.line(format!("  {}  {gap:>8}  {}", local(entry.at), event(out, entry)));
        if let Event::Ended(ended) = &entry.event {
            let used = ended.usage.iter().flat_map(|usage| usage::lines(usage));
            used.for_each(|line| out.line(format!("{:33}{line}", "")));
        }
    }
}

/// A command on one line, cut where it is long.
pub(super) fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut text = words.join(" ");
    if let Some((cut, _)) = text.char_indices().nth(100) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn reason(job: &Job) -> String {
    let State::Done { outcome, exit_code, message, .. } = &job.state else { return String::new() };
    let mut text = String::new();
    if let Some(outcome) = outcome.filter(|outcome| outcome.as_str() != job.phase().as_str()) {
        let _ = write!(text, ": {outcome}");
    }
    if let Some(code) = exit_code.filter(|code| *code != 0) {
        let _ = write!(text, ", exit code {code}");
    }
    if let Some(message) = message {
        let _ = write!(text, " ({message})");
    }
    text
}

fn event(out: Out, entry: &Entry) -> String {
    let name = entry.event.name();
    let name = if out.color() { name.bold().to_string() } else { name.to_owned() };
    let by = &entry.author;
    match &entry.event {
        Event::Submitted(_) | Event::Cancelled | Event::Retried => format!("{name} by {by}"),
        Event::Claimed(claim) => {
            let gpus = match claim.gpus.len() {
                0 => String::new(),
                1 => format!(" with {}", claim.gpus[0]),
                n => format!(" with {n} GPUs"),
            };
            format!("{name} by {by}, attempt {}{gpus}", claim.attempt)
        }
        Event::Started(started) => {
            let container: String = started.container.chars().take(12).collect();
            format!("{name} container {container} of {}", started.image)
        }
        Event::Resumed(_) => format!("{name} by {by}, which had been cut off"),
        Event::Ended(ended) => {
            let code = ended.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
            let ran =
                ended.started_at.zip(ended.finished_at).and_then(|(from, to)| (to - from).to_std().ok());
            let ran = ran.map_or_else(String::new, |ran| format!(", ran {}", span(ran)));
            let why = ended.message.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            let next = match &ended.next {
                Next::Final => String::new(),
                Next::Requeue { not_before: Some(time), .. } => {
                    format!("; tried again from {}", local(*time))
                }
                Next::Requeue { not_before: None, .. } => "; tried again".into(),
            };
            format!("{name}: {}{code}{ran}{why}{next}", ended.outcome)
        }
        Event::CancelRequested(request) => {
            let why = request.reason.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            format!("{name} by {by}{why}")
        }
        Event::Rejected(rejected) => format!("{name}: {}", rejected.reason),
    }
}

fn explain(out: Out, waiting: &Waiting, now: Timestamp) {
    let verdict = match waiting.verdict {
        Verdict::Paused => "it pauses after its last attempt".to_owned(),
        Verdict::Parked => "its team has as many jobs in the queue as it may (the fleet's setting window); \
             it follows when one of them is claimed"
            .to_owned(),
        Verdict::Soon => "a node has room for it and is about to take it".to_owned(),
        Verdict::Reserved => waiting.reserved.as_ref().map_or_else(String::new, |on| kept(on, now)),
        Verdict::Prefetching => waiting.prefetching.as_ref().map_or_else(String::new, reads_ahead),
        Verdict::Busy => "the nodes that fit are busy".to_owned(),
        Verdict::Closed => "the nodes that would fit take no jobs at present".to_owned(),
        Verdict::NoHost => "no node of the fleet can run it as they are".to_owned(),
        Verdict::NoNodes => "no agent is alive in this fleet; start one with: haul agent".to_owned(),
    };
    out.line(format!("waits      {}: {verdict}", ago(waiting.since, now)));
    if let Some(time) = waiting.not_before {
        out.line(format!("           not before {}", local(time)));
    }
    fits(out, &waiting.nodes);
}

/// How far a job's data has been read ahead.
fn reads_ahead(on: &PrefetchingOn) -> String {
    let Prefetching { files, files_done, bytes, bytes_done } = on.progress;
    let (done, all) = (bytes_done.human(), bytes.human());
    format!(
        "{} reads ahead what it will read, {files_done} of {files} files so far, {done} of {all}",
        on.node
    )
}

/// Where room is kept for a job.
fn kept(on: &ReservedOn, now: Timestamp) -> String {
    let start = match on.reserved.start {
        When::Now => "it is about to start".to_owned(),
        When::At(time) => format!("it starts at {} at the latest", local(time)),
        When::Unknown => "it starts when what runs there has ended, which has no time limit".to_owned(),
    };
    let (since, until) = (ago(on.reserved.since, now), local(on.reserved.until));
    format!("{} has kept room for it since {since}, until {until} if need be; {start}", on.node)
}

/// What each node says to a job.
pub fn fits(out: Out, nodes: &[NodeFit]) {
    for node in nodes {
        let verdict = match (node.now, node.when_empty) {
            (true, _) => "fits now",
            (false, true) => "fits later",
            (false, false) => "does not fit",
        };
        let why: Vec<String> = node.why.iter().map(ToString::to_string).collect();
        let why = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
        out.line(format!("  {}  {verdict}{why}", node.node));
    }
}

/// One job as JSON.
pub fn status_json(status: &Status) -> serde_json::Value {
    json!({
        "job": Summary { state: status.phase, ..Summary::of(&status.job) },
        "spec": status.job.spec,
        "waiting": status.waiting,
        "warning": status.warning,
        "history": status.history,
    })
}
