//! The rules of a job beyond the types of its fields.

use std::{collections::BTreeSet, fmt};

use super::spec::{JobSpec, Mount};
use crate::units::Size;

/// The largest job, in bytes of its JSON or of its file: 256 KiB.
pub const MAX_SPEC: usize = 256 << 10;

/// The smallest share of a GPU: a CUDA context alone takes some hundred MiB.
const MIN_GPU_SHARE: Size = Size(256 << 20);

/// The most webhooks of a job.
const MAX_WEBHOOKS: usize = 8;

/// One thing wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which field, from the top: `mounts[0].target`.
    pub field: String,
    /// Its value as JSON, cut to 60 characters; `None` where it is missing.
    pub value: Option<String>,
    /// What is allowed.
    pub allowed: String,
}

impl Fault {
    pub(super) fn new(
        field: impl Into<String>,
        value: &serde_json::Value,
        allowed: impl Into<String>,
    ) -> Self {
        let mut value = value.to_string();
        if let Some((cut, _)) = value.char_indices().nth(60) {
            value.truncate(cut);
            value.push('…');
        }
        Self { field: field.into(), value: Some(value), allowed: allowed.into() }
    }

    pub(super) fn missing(field: impl Into<String>) -> Self {
        Self { field: field.into(), value: None, allowed: "required, and missing".into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.field, self.allowed),
            None => write!(f, "{}: {}", self.field, self.allowed),
        }
    }
}

/// Every rule that the job breaks; none for a valid job.
pub fn validate(spec: &JobSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut check = |ok: bool, field: &str, value: serde_json::Value, allowed: &str| {
        if !ok {
            faults.push(Fault::new(field, &value, allowed));
        }
    };
    let image_ok =
        !spec.image.is_empty() && spec.image.len() <= 512 && spec.image.chars().all(|c| c.is_ascii_graphic());
    check(
        image_ok,
        "image",
        spec.image.as_str().into(),
        "an image reference such as registry.example/team/image:tag",
    );
    let words_ok = |words: &[String]| {
        words.first().is_some_and(|word| !word.is_empty()) && !words.iter().any(|w| w.contains('\0'))
    };
    for (field, words) in [("command", &spec.command), ("entrypoint", &spec.entrypoint)] {
        if let Some(words) = words {
            let allowed = "at least a program's name, or leave the field out for what the image says";
            check(words_ok(words), field, words.clone().into(), allowed);
        }
    }
    if let Some(workdir) = &spec.workdir {
        check(workdir.starts_with('/'), "workdir", workdir.as_str().into(), "an absolute path");
    }
    check(spec.retries <= 100, "retries", spec.retries.into(), "0 to 100");
    if let Some(factor) = spec.retry_memory {
        check((1.0..=10.0).contains(&factor), "retry_memory", factor.into(), "1 to 10");
        check(
            spec.resources.memory.is_some(),
            "retry_memory",
            factor.into(),
            "needs resources.memory, which it multiplies",
        );
    }
    if let Some(timeout) = spec.timeout {
        check(!timeout.0.is_zero(), "timeout", timeout.to_string().into(), "longer than 0s");
    }
    if let Some(warn) = spec.warn {
        let allowed = "shorter than timeout, which must be given with it";
        check(spec.timeout.is_some_and(|timeout| warn < timeout), "warn", warn.to_string().into(), allowed);
    }
    resources(spec, &mut check);
    for (i, mount) in spec.mounts.iter().enumerate() {
        mount_rules(i, mount, &mut check);
    }
    let targets: BTreeSet<_> = spec.mounts.iter().map(|mount| mount.target.trim_end_matches('/')).collect();
    check(
        targets.len() == spec.mounts.len(),
        "mounts",
        spec.mounts.len().into(),
        "each with a target of its own",
    );
    for (i, webhook) in spec.webhooks.iter().enumerate() {
        let fault = webhook.fault();
        let field = format!("webhooks[{i}].url");
        check(fault.is_none(), &field, webhook.url.as_str().into(), fault.unwrap_or_default());
    }
    check(spec.webhooks.len() <= MAX_WEBHOOKS, "webhooks", spec.webhooks.len().into(), "at most 8");
    for secret in &spec.secrets {
        let clash = spec.env.keys().any(|name| name.as_str() == secret.as_str());
        check(!clash, "secrets", secret.as_str().into(), "a variable that env does not set as well");
    }
    faults
}

fn resources(spec: &JobSpec, check: &mut impl FnMut(bool, &str, serde_json::Value, &str)) {
    let needs = &spec.resources;
    check(needs.gpus <= 64, "resources.gpus", needs.gpus.into(), "0 to 64");
    let amounts = [needs.gpus > 0, needs.gpu_share.is_some(), needs.mig.is_some()];
    if let Some(share) = needs.gpu_share {
        check(share >= MIN_GPU_SHARE, "resources.gpu_share", share.to_string().into(), "at least 256MiB");
    }
    if amounts.iter().filter(|asked| **asked).count() > 1 {
        let asked = serde_json::json!({ "gpus": needs.gpus, "gpu_share": needs.gpu_share, "mig": needs.mig });
        check(false, "resources", asked, "only one of gpus, gpu_share and mig");
    }
    let needs_gpu = "gpus of 1 or more, gpu_share or mig beside it";
    for model in &needs.gpu_model {
        let ok = model.chars().any(|c| c.is_ascii_alphanumeric()) && model.len() <= 64;
        check(ok, "resources.gpu_model", model.as_str().into(), "a model's name such as A100");
    }
    let without_gpus = amounts == [false; 3];
    check(
        !without_gpus || needs.gpu_model.is_empty(),
        "resources.gpu_model",
        needs.gpu_model.clone().into(),
        needs_gpu,
    );
    if let Some(memory) = needs.gpu_memory {
        check(!without_gpus, "resources.gpu_memory", memory.to_string().into(), needs_gpu);
    }
    if let Some(capability) = needs.compute_capability {
        check(!without_gpus, "resources.compute_capability", capability.to_string().into(), needs_gpu);
    }
    if let Some(cuda) = needs.cuda {
        check(!without_gpus, "resources.cuda", cuda.to_string().into(), needs_gpu);
    }
    if let Some(cpus) = needs.cpus {
        check((0.01..=4096.0).contains(&cpus), "resources.cpus", cpus.into(), "0.01 to 4096");
    }
    if let Some(memory) = needs.memory {
        check(
            memory >= Size(6 << 20),
            "resources.memory",
            memory.to_string().into(),
            "at least 6MiB, which the engine needs",
        );
    }
    if let Some(shm) = needs.shm {
        check(shm > Size(0), "resources.shm", shm.to_string().into(), "more than 0B");
    }
}

fn mount_rules(i: usize, mount: &Mount, check: &mut impl FnMut(bool, &str, serde_json::Value, &str)) {
    let target_ok =
        mount.target.starts_with('/') && !mount.target.trim_matches('/').is_empty() && no_dots(&mount.target);
    check(
        target_ok,
        &format!("mounts[{i}].target"),
        mount.target.as_str().into(),
        "an absolute path other than /, without '..'",
    );
    if let Some(path) = &mount.path {
        let ok = !path.starts_with('/') && no_dots(path) && !path.contains('\0');
        let allowed = "a path below the volume: relative, without '..'";
        check(ok, &format!("mounts[{i}].path"), path.as_str().into(), allowed);
    }
    for pattern in &mount.prefetch {
        let ok = !pattern.starts_with('/') && no_dots(pattern) && glob::Pattern::new(pattern).is_ok();
        let allowed = "a pattern of paths below the mount, such as \"train/**\" or \"*.tar\", without '..'";
        check(ok, &format!("mounts[{i}].prefetch"), pattern.as_str().into(), allowed);
    }
    let few = mount.prefetch.len() <= MOST_PATTERNS;
    check(few, &format!("mounts[{i}].prefetch"), mount.prefetch.len().into(), "at most 64 patterns");
}

/// How many patterns a mount may have; each is compared with each file.
const MOST_PATTERNS: usize = 64;

/// No part of the path goes up.
fn no_dots(path: &str) -> bool {
    path.split('/').all(|part| part != "..") && !path.contains(':')
}
