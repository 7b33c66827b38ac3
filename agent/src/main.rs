//! `haul`: the agent on every host, and the commands that people give.

fn main() {}
