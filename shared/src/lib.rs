//! What haul's producers and agents share: the protocol and its records.
//!
//! Read in this order: [`job`] (what people write), [`log`] (what happened, the truth), [`lane`]
//! (who may take it), [`index`] (where to look), [`message`] and [`queue`] (the hint that work
//! waits), [`store`] (the one primitive beneath), [`output`] (what containers print), [`node`]
//! (what hosts say of themselves), [`lease`] (how a lost one is told from one that is cut off),
//! [`fleet`] (all of it at one URL), [`client`] (what people do with it), [`event`] (what is told of
//! it).

pub mod client;
pub mod clock;
pub mod demand;
pub mod event;
pub mod fleet;
pub mod id;
pub mod index;
pub mod job;
pub mod lane;
pub mod lease;
pub mod log;
pub mod message;
pub mod mutant;
pub mod node;
pub mod output;
pub mod policy;
pub mod price;
pub mod queue;
pub mod record;
pub mod store;
pub mod units;
pub mod window;
