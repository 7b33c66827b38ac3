//! Status events: what is told to whoever wants to hear of a job's changes.
//!
//! Each entry of a job's log becomes one event, told at least once, and in order per job and
//! receiver. Receivers are the fleet's status queue and [webhooks](Webhook), the fleet's and the
//! job's own.

mod webhook;

pub use webhook::{EventType, Webhook};
