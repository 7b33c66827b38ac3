//! From flags, variables and the file to one configuration, with the source of each value.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
};

use clap::parser::ValueSource;
use serde::Serialize;
use shared::{
    id::VolumeName,
    price::{self, Price},
    units::{Size, Span},
};
use url::Url;

use super::{AgentConfig, AgentFlags, FileConfig, Mark, MountKind, OnStop, VolumeConfig, defaults};
use crate::cloud::{self, Instance};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("the configuration {} is not valid: {detail}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// A value is out of range.
    #[error("{name} = {value}: {allowed}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// As given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// A price in the file, as text.
pub(super) fn price<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Option<Price>, D::Error> {
    price::text::deserialize(text).map(Some)
}

/// One effective value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The setting.
    pub name: &'static str,
    /// Its value, as a file would have it.
    pub value: String,
    /// `flag`, `variable`, the file's name, or `default`.
    pub source: String,
}

/// A directory's path, or a URL.
pub(crate) fn parse_fleet(text: &str) -> Result<Url, String> {
    if text.contains("://") {
        return text.parse().map_err(|e| format!("{e}"));
    }
    let path = std::path::absolute(text).map_err(|e| e.to_string())?;
    Url::from_directory_path(&path).map_err(|()| format!("{text:?} is neither a URL nor a path"))
}

pub(super) fn parse_volume(text: &str) -> Result<(VolumeName, VolumeConfig), String> {
    let (name, rest) =
        text.split_once('=').ok_or("a volume is NAME=PATH, NAME=PATH:ro or NAME=PATH:ro:mount")?;
    let name = name.parse().map_err(|e: shared::id::NameError| e.to_string())?;
    let mut volume = VolumeConfig::default();
    let mut path = rest;
    while let Some((before, option)) = path.rsplit_once(':') {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "mount" => volume.mount = Some(MountKind::Any(true)),
            _ => break,
        }
        path = before;
    }
    volume.path = std::path::absolute(path).map_err(|e| e.to_string())?;
    Ok((name, volume))
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    if key.is_empty() {
        return Err("a label is KEY=VALUE, and its key is not empty".into());
    }
    Ok((key.into(), value.into()))
}

fn read_file(path: &Path) -> Result<FileConfig, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|e| ConfigError::Invalid {
        path: path.to_owned(),
        detail: e.to_string().trim_end().to_owned(),
    })
}

/// Picks each value from where it is given last, and notes where that was.
struct Picker<'s> {
    source: &'s dyn Fn(&str) -> Option<ValueSource>,
    file: String,
    effective: Vec<Effective>,
}

impl Picker<'_> {
    fn pick<T>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        file: Option<T>,
        default: impl FnOnce() -> T,
        show: impl Fn(&T) -> String,
    ) -> T {
        let (value, source) = match (flag, file) {
            (Some(value), _) => (value, self.given(name)),
            (None, Some(value)) => (value, self.file.clone()),
            (None, None) => (default(), "default".to_owned()),
        };
        self.effective.push(Effective { name, value: show(&value), source });
        value
    }

    /// For what may be left out.
    fn optional<T: Display>(&mut self, name: &'static str, flag: Option<T>, file: Option<T>) -> Option<T> {
        self.pick(name, flag.map(Some), file.map(Some), || None, maybe)
    }

    fn note<T: Display>(&mut self, name: &'static str, value: T, source: String) -> T {
        self.effective.push(Effective { name, value: value.to_string(), source });
        value
    }

    fn given(&self, name: &str) -> String {
        match (self.source)(name) {
            Some(ValueSource::EnvVariable) => "variable".into(),
            _ => "flag".into(),
        }
    }

    /// For values that add up: an entry of a later layer replaces an earlier one's of the same key.
    fn merge<K: Ord + Clone, V: Clone, const N: usize>(
        &mut self,
        name: &'static str,
        layers: [(BTreeMap<K, V>, String); N],
        show: impl Fn(&K, &V) -> String,
    ) -> BTreeMap<K, V> {
        let mut merged: BTreeMap<K, (V, String)> = BTreeMap::new();
        for (layer, source) in layers {
            merged.extend(layer.into_iter().map(|(key, value)| (key, (value, source.clone()))));
        }
        for (key, (value, source)) in &merged {
            self.effective.push(Effective { name, value: show(key, value), source: source.clone() });
        }
        merged.into_iter().map(|(key, (value, _))| (key, value)).collect()
    }
}

fn text<T: Display>(value: &T) -> String {
    value.to_string()
}

fn path(value: &Path) -> String {
    value.display().to_string()
}

fn maybe<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".into(), T::to_string)
}

/// Whose metadata service is to be asked, before the rest can be resolved.
///
/// # Errors
/// [`ConfigError`]
pub fn cloud_of(flags: &AgentFlags) -> Result<cloud::Choice, ConfigError> {
    let file = flags.host.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    Ok(flags.cloud.or(file.cloud).unwrap_or_default())
}

/// The effective configuration, and the source of each of its values. `source` says of a flag
/// whether it was given on the command line or as a variable.
///
/// # Errors
/// [`ConfigError`] naming the file, the field and the fix.
pub fn resolve(
    fleet: Option<Url>,
    flags: AgentFlags,
    instance: Option<&Instance>,
    source: &dyn Fn(&str) -> Option<ValueSource>,
) -> Result<(AgentConfig, Vec<Effective>), ConfigError> {
    let file = flags.host.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let file_name = flags.host.config.as_deref().map_or_else(String::new, |path| path.display().to_string());
    let mut picker = Picker { source, file: file_name, effective: Vec::new() };
    let p = &mut picker;
    let file_fleet = file.fleet.as_deref().map(parse_fleet).transpose().map_err(|_| ConfigError::Value {
        name: "fleet",
        value: file.fleet.clone().unwrap_or_default(),
        allowed: "a directory or a URL such as s3://bucket/prefix",
    })?;
    let (all_cpus, all_memory) = defaults::capacity();
    let fleet = p.pick("fleet", fleet, file_fleet, defaults::default_fleet, text);
    let node = match instance.and_then(Instance::node) {
        Some(node) if flags.host.node.is_none() && file.node.is_none() => {
            p.note("node", node, metadata(instance))
        }
        _ => p.pick("node", flags.host.node, file.node, defaults::node, text),
    };
    let state_dir =
        p.pick("state_dir", flags.host.state_dir, file.state_dir, defaults::state_dir, |dir| path(dir));
    let state_dir = std::path::absolute(&state_dir).unwrap_or(state_dir);
    let outputs = || state_dir.join("outputs");
    let outputs_dir =
        p.pick("outputs_dir", flags.host.outputs_dir, file.outputs_dir, outputs, |dir| path(dir));
    let outputs_dir = std::path::absolute(&outputs_dir).unwrap_or(outputs_dir);
    let marks = marks(
        p,
        [
            (flags.disk_floor, file.disk_floor),
            (flags.disk_clean, file.disk_clean),
            (flags.disk_target, file.disk_target),
            (flags.outputs_min_free, file.outputs_min_free),
        ],
    );
    let config = AgentConfig {
        fleet,
        node,
        outputs_dir,
        outputs_mount: directory(p, "outputs_mount", flags.host.outputs_mount, file.outputs_mount, || None),
        secrets_dir: directory(
            p,
            "secrets_dir",
            flags.host.secrets_dir,
            file.secrets_dir,
            defaults::secrets_dir,
        ),
        volumes: volumes(p, file.volumes, flags.host.volumes),
        labels: labels(p, instance, file.labels, flags.host.labels),
        simulate_gpus: p.optional("simulate_gpus", flags.host.simulate_gpus, file.simulate_gpus),
        engine: p.pick(
            "engine",
            flags.host.engine.map(Some),
            file.engine.map(Some),
            || None,
            |engine| engine.clone().unwrap_or_else(|| "Docker's default".into()),
        ),
        max_jobs: p.pick("max_jobs", flags.max_jobs, file.max_jobs, || 64, text),
        cpus: p.pick("cpus", flags.cpus, file.cpus, || all_cpus, text),
        memory: p.pick("memory", flags.memory, file.memory, || all_memory, text),
        on_stop: p.pick("on_stop", flags.on_stop, file.on_stop, OnStop::default, |on| {
            format!("{on:?}").to_lowercase()
        }),
        stop_deadline: {
            let default = || Span::secs(600);
            p.pick("stop_deadline", flags.stop_deadline, file.stop_deadline, default, text)
        },
        disk_floor: marks.floor,
        disk_clean: marks.clean,
        disk_target: marks.target,
        log_limit: p.pick("log_limit", flags.host.log_limit, file.log_limit, || Size::GIB, text),
        price: p.optional("price", flags.host.price, file.price),
        claim_after: p.pick("claim_after", flags.claim_after, file.claim_after, || Span::secs(0), text),
        outputs_min_free: marks.outputs_min_free,
        metrics: p.optional("metrics", flags.metrics, file.metrics),
        exit_when_idle: p.optional("exit_when_idle", flags.exit_when_idle, file.exit_when_idle),
        private: false,
        state_dir,
    };
    check(&config)?;
    Ok((config, picker.effective))
}

/// How full disks may be.
struct Marks {
    floor: Mark,
    clean: Mark,
    target: Mark,
    outputs_min_free: Option<Mark>,
}

/// As a kubelet has it: images go from 85 % on until 80 %, and nothing new begins on a full disk.
fn marks(p: &mut Picker<'_>, given: [(Option<Mark>, Option<Mark>); 4]) -> Marks {
    let [floor, clean, target, outputs] = given;
    Marks {
        floor: p.pick("disk_floor", floor.0, floor.1, || Mark::Percent(5), text),
        clean: p.pick("disk_clean", clean.0, clean.1, || Mark::Percent(15), text),
        target: p.pick("disk_target", target.0, target.1, || Mark::Percent(20), text),
        outputs_min_free: p.optional("outputs_min_free", outputs.0, outputs.1),
    }
}

/// A directory that there need not be.
fn directory(
    p: &mut Picker<'_>,
    name: &'static str,
    flag: Option<PathBuf>,
    file: Option<PathBuf>,
    default: impl FnOnce() -> Option<PathBuf>,
) -> Option<PathBuf> {
    p.pick(name, flag.map(Some), file.map(Some), default, |dir| maybe(&dir.as_deref().map(path)))
}

fn metadata(instance: Option<&Instance>) -> String {
    instance.map_or_else(String::new, |instance| format!("{} metadata", instance.provider))
}

fn volumes(
    p: &mut Picker<'_>,
    file: BTreeMap<VolumeName, VolumeConfig>,
    flags: Vec<(VolumeName, VolumeConfig)>,
) -> BTreeMap<VolumeName, VolumeConfig> {
    let layers = [(file, p.file.clone()), (flags.into_iter().collect(), p.given("volumes"))];
    p.merge("volumes", layers, |name, volume| {
        let read_only = if volume.read_only { ":ro" } else { "" };
        let mount = if volume.mount.as_ref().is_some_and(MountKind::is_wanted) { ":mount" } else { "" };
        format!("{name}={}{read_only}{mount}", volume.path.display())
    })
}

/// What is said by hand holds.
fn labels(
    p: &mut Picker<'_>,
    instance: Option<&Instance>,
    file: BTreeMap<String, String>,
    flags: Vec<(String, String)>,
) -> BTreeMap<String, String> {
    let of_cloud = instance.map(Instance::labels).unwrap_or_default();
    let layers = [
        (of_cloud, metadata(instance)),
        (file, p.file.clone()),
        (flags.into_iter().collect(), p.given("labels")),
    ];
    p.merge("labels", layers, |key, value| format!("{key}={value}"))
}

/// What no type rules out.
fn check(config: &AgentConfig) -> Result<(), ConfigError> {
    let value = |name, value: String, allowed| Err(ConfigError::Value { name, value, allowed });
    if !(config.cpus.is_finite() && config.cpus > 0.0) {
        return value("cpus", config.cpus.to_string(), "more than 0 cores");
    }
    if config.max_jobs == 0 {
        return value("max_jobs", "0".into(), "at least 1; to take no jobs use: haul drain");
    }
    if config.log_limit < Size(1 << 20) {
        return value("log_limit", config.log_limit.to_string(), "at least 1MiB");
    }
    if let Some(mount) = &config.outputs_mount
        && !(mount.is_absolute() && config.outputs_dir.starts_with(mount))
    {
        return value("outputs_mount", mount.display().to_string(), "outputs_dir, or a directory above it");
    }
    for (name, volume) in &config.volumes {
        if !volume.path.is_absolute() {
            return value("volumes", format!("{name}={}", volume.path.display()), "an absolute path");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostFlags;

    fn source(_: &str) -> Option<ValueSource> {
        Some(ValueSource::CommandLine)
    }

    fn with_file(text: &str, flags: AgentFlags) -> Result<(AgentConfig, Vec<Effective>), ConfigError> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        resolve(
            None,
            AgentFlags { host: HostFlags { config: Some(path), ..flags.host }, ..flags },
            None,
            &source,
        )
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "max_jobs = 3\ncpus = 2.5\n[volumes.data]\npath = \"/srv/data\"\n[volumes.out]\npath = \"/srv/out\"";
        let data = parse_volume("data=/mnt/data:ro").expect("valid");
        let host = HostFlags { volumes: vec![data], ..HostFlags::default() };
        let flags = AgentFlags { max_jobs: Some(9), host, ..AgentFlags::default() };
        let (config, effective) = with_file(file, flags).expect("valid");
        assert_eq!((config.max_jobs, config.cpus, config.on_stop), (9, 2.5, OnStop::Keep));
        let source_of = |wanted: &str| {
            let found = effective.iter().find(|e| e.name == wanted || e.value.starts_with(wanted));
            found.map(|e| e.source.rsplit('/').next().unwrap_or_default().to_owned())
        };
        assert_eq!(source_of("max_jobs").as_deref(), Some("flag"));
        assert_eq!(source_of("cpus").as_deref(), Some("agent.toml"));
        assert_eq!(source_of("on_stop").as_deref(), Some("default"));
        assert_eq!(source_of("data=/mnt/data:ro").as_deref(), Some("flag"));
        assert_eq!(source_of("out=/srv/out").as_deref(), Some("agent.toml"));
    }

    #[test]
    fn a_volume_has_options_after_its_path() {
        let volume = |text: &str| {
            let (_, volume) = parse_volume(text).expect("valid");
            (volume.path.display().to_string(), volume.read_only, volume.mount.is_some())
        };
        assert_eq!(volume("d=/mnt/a:b"), ("/mnt/a:b".into(), false, false));
        assert_eq!(volume("d=/mnt/d:ro:mount"), ("/mnt/d".into(), true, true));
        assert_eq!(volume("d=/mnt/d:mount:rw"), ("/mnt/d".into(), false, true));
    }

    #[test]
    fn a_bad_file_is_named_with_the_place() {
        let error = with_file("max_job = 3", AgentFlags::default()).expect_err("unknown field");
        let text = error.to_string();
        assert!(
            text.contains("agent.toml is not valid") && text.contains("unknown field `max_job`"),
            "{text}"
        );
        let error = with_file("cpus = 0.0", AgentFlags::default()).expect_err("out of range");
        assert_eq!(error.to_string(), "cpus = 0: more than 0 cores");
        let below = "outputs_dir = \"/mnt/data/outputs\"\noutputs_mount = ";
        with_file(&format!("{below}\"/mnt/data\""), AgentFlags::default()).expect("above it");
        let error = with_file(&format!("{below}\"/mnt/dat\""), AgentFlags::default()).expect_err("elsewhere");
        assert_eq!(error.to_string(), "outputs_mount = /mnt/dat: outputs_dir, or a directory above it");
        with_file(&format!("{below}\"\""), AgentFlags::default()).expect_err("none");
    }

    #[test]
    fn a_fleet_is_a_url_or_a_directory() {
        assert_eq!(parse_fleet("/srv/haul").map(String::from).as_deref(), Ok("file:///srv/haul/"));
        assert_eq!(parse_fleet("s3://b/p").map(String::from).as_deref(), Ok("s3://b/p"));
    }
}
