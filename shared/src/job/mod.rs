//! A job as its author writes it.
//!
//! [`JobSpec`] is the one definition: the files people write, the JSON that other programs send,
//! the JSON Schema of `haul schema job` and the record in the store are all this type.
//! [`parse`] reads TOML, YAML and JSON; [`validate`] holds the rules that go beyond one field's
//! type. Both report every fault at once, each with its field, its value and what is allowed.

mod env;
mod mig;
mod parse;
mod spec;
mod validate;

pub use env::{EnvName, EnvValue, SecretName};
pub use mig::MigProfile;
pub use parse::{Format, SpecError, parse, parse_value};
pub use spec::{
    Arch, ComputeCapability, CudaVersion, JobSpec, Mount, OnIsolation, Placement, Priority, Pull, Resources,
    Version2,
};
pub use validate::{Fault, MAX_SPEC, validate};

/// The JSON Schema (2020-12) of a job file.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(JobSpec)
}
