//! From the command line to a job.

use anyhow::{Context as _, Result};
use shared::job::{EnvName, EnvValue, Format, JobSpec, SpecError, parse, validate};

use crate::{cli::JobSource, exit::Usage};

/// The job that a file, words and flags describe.
///
/// # Errors
/// A file that cannot be read, or faults in it, all of them.
pub fn load(source: &JobSource) -> Result<JobSpec> {
    let mut spec = match &source.file {
        Some(path) => {
            let format = Format::of(path)?;
            let shown = path.display();
            let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
            if size.is_dir() {
                return Err(Usage(format!("{shown} is a directory, not a job's file")).into());
            }
            if size.len() > shared::job::MAX_SPEC as u64 {
                let size = usize::try_from(size.len()).unwrap_or(usize::MAX);
                return Err(
                    anyhow::Error::from(SpecError::TooLarge { size }).context(format!("{shown} is no job"))
                );
            }
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
            parse(&text, format).with_context(|| format!("{shown} is no valid job"))?
        }
        None => {
            let Some(image) = source.words.first() else {
                return Err(Usage("say what to run: a job's file, or -- IMAGE COMMAND…".into()).into());
            };
            JobSpec::new(image.clone())
        }
    };
    let command =
        if source.file.is_some() { &source.words[..] } else { source.words.get(1..).unwrap_or_default() };
    if !command.is_empty() {
        spec.command = Some(command.to_vec());
    }
    overrides(source, &mut spec)?;
    let faults = validate(&spec);
    if faults.is_empty() { Ok(spec) } else { Err(SpecError::Faults(faults).into()) }
}

/// Flags win over the file.
fn overrides(source: &JobSource, spec: &mut JobSpec) -> Result<()> {
    for pair in &source.env {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Usage(format!("--env {pair}: write NAME=VALUE")))?;
        let name: EnvName = name.parse().map_err(|e| Usage(format!("--env {pair}: {e}")))?;
        spec.env.insert(name, EnvValue(value.into()));
    }
    if source.name.is_some() {
        spec.name.clone_from(&source.name);
    }
    if !source.gpu_model.is_empty() {
        spec.resources.gpu_model.clone_from(&source.gpu_model);
    }
    let resources = &mut spec.resources;
    // What is asked for of GPUs is one thing, in whichever words.
    if source.gpus.is_some() || source.gpu_share.is_some() || source.mig.is_some() {
        resources.gpus = source.gpus.unwrap_or_default();
        (resources.gpu_share, resources.mig) = (source.gpu_share, source.mig);
    }
    resources.gpu_memory = source.gpu_memory.or(resources.gpu_memory);
    resources.cpus = source.cpus.or(resources.cpus);
    resources.memory = source.memory.or(resources.memory);
    spec.timeout = source.timeout.or(spec.timeout);
    spec.retries = source.retries.unwrap_or(spec.retries);
    spec.priority = source.priority.unwrap_or(spec.priority);
    spec.preemptible |= source.preemptible;
    if let Some(team) = &source.team {
        spec.team = team.clone();
    }
    Ok(())
}
