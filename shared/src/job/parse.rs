//! From a file to a [`JobSpec`], with every fault named at once.
//!
//! The three formats become one tree of values, and the tree is read field by field: a field
//! that is unknown, missing or of the wrong kind is noted and the reading goes on. Deserialising
//! the whole would stop at the first.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::event::Webhook;

use super::{
    spec::{JobSpec, Mount, Placement, Resources},
    validate::{Fault, MAX_SPEC, validate},
};

/// A file that is no valid job.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file's name does not tell its format.
    #[error("{0}: the name must end in .toml, .yaml, .yml or .json")]
    UnknownFormat(String),
    /// The text is no TOML, YAML or JSON.
    #[error("not valid {format}: {detail}")]
    Syntax {
        /// What it was read as.
        format: &'static str,
        /// Where and what, from the parser.
        detail: String,
    },
    /// The file is larger than any job may be.
    #[error("{size} bytes are too large for a job: at most {MAX_SPEC}; put data in a volume or the image")]
    TooLarge {
        /// Bytes of text.
        size: usize,
    },
    /// The fields are wrong; all of them are listed.
    #[error("{}", list(.0))]
    Faults(Vec<Fault>),
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How a job file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.
    Toml,
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
}

impl Format {
    /// By the ending of the file's name.
    ///
    /// # Errors
    /// [`SpecError::UnknownFormat`] for any other ending.
    pub fn of(path: &Path) -> Result<Self, SpecError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("yaml" | "yml") => Ok(Self::Yaml),
            Some("json") => Ok(Self::Json),
            _ => Err(SpecError::UnknownFormat(path.display().to_string())),
        }
    }
}

/// Reads a job from text.
///
/// # Errors
/// [`SpecError`]; where the text is well-formed, with every fault in it.
pub fn parse(text: &str, format: Format) -> Result<JobSpec, SpecError> {
    if text.len() > MAX_SPEC {
        return Err(SpecError::TooLarge { size: text.len() });
    }
    let syntax = |format, detail: String| SpecError::Syntax { format, detail: detail.trim_end().into() };
    let value = match format {
        Format::Toml => toml::from_str(text).map_err(|e| syntax("TOML", e.to_string()))?,
        Format::Yaml => serde_saphyr::from_str(text).map_err(|e| syntax("YAML", e.to_string()))?,
        Format::Json => serde_json::from_str(text).map_err(|e| syntax("JSON", e.to_string()))?,
    };
    parse_value(value)
}

/// Reads a job from a tree of values.
///
/// # Errors
/// [`SpecError::Faults`] with every fault.
pub fn parse_value(value: Value) -> Result<JobSpec, SpecError> {
    let mut faults = Vec::new();
    let spec = read_job(value, &mut faults);
    match spec {
        Some(spec) if faults.is_empty() => {
            let faults = validate(&spec);
            if faults.is_empty() { Ok(spec) } else { Err(SpecError::Faults(faults)) }
        }
        spec => {
            faults.extend(spec.iter().flat_map(validate));
            Err(SpecError::Faults(faults))
        }
    }
}

/// `None` where nothing could be made of it, not even with the faulty fields left out.
fn read_job(value: Value, faults: &mut Vec<Fault>) -> Option<JobSpec> {
    let mut fields = Fields::open("", value, faults)?;
    let image = fields.required("image");
    let defaults = JobSpec::new(String::new());
    let spec = JobSpec {
        name: fields.optional("name"),
        image: String::new(),
        command: fields.optional("command"),
        entrypoint: fields.optional("entrypoint"),
        workdir: fields.optional("workdir"),
        user: fields.optional("user"),
        env: fields.or("env", defaults.env),
        secrets: fields.or("secrets", defaults.secrets),
        team: fields.or("team", defaults.team),
        priority: fields.or("priority", defaults.priority),
        preemptible: fields.or("preemptible", defaults.preemptible),
        timeout: fields.optional("timeout"),
        warn: fields.optional("warn"),
        grace: fields.or("grace", defaults.grace),
        retries: fields.or("retries", defaults.retries),
        retry_memory: fields.optional("retry_memory"),
        on_isolation: fields.or("on_isolation", defaults.on_isolation),
        pull: fields.or("pull", defaults.pull),
        resources: fields.table("resources", read_resources).unwrap_or_default(),
        placement: fields.table("placement", read_placement).unwrap_or_default(),
        mounts: fields.tables("mounts", read_mount),
        webhooks: fields.tables("webhooks", read_webhook),
        array_index: fields.optional("array_index"),
    };
    fields.close();
    // With a stand-in where the image is missing, which is noted, the other rules are still checked.
    Some(JobSpec { image: image.unwrap_or_else(|| "missing".into()), ..spec })
}

fn read_resources(mut fields: Fields<'_>) -> Option<Resources> {
    let resources = Resources {
        gpus: fields.or("gpus", 0),
        gpu_share: fields.optional("gpu_share"),
        mig: fields.optional("mig"),
        gpu_model: fields.one_or_many("gpu_model"),
        gpu_memory: fields.optional("gpu_memory"),
        compute_capability: fields.optional("compute_capability"),
        cuda: fields.optional("cuda"),
        cpus: fields.optional("cpus"),
        memory: fields.optional("memory"),
        shm: fields.optional("shm"),
        arch: fields.or("arch", super::Arch::default()),
    };
    fields.close();
    Some(resources)
}

fn read_placement(mut fields: Fields<'_>) -> Option<Placement> {
    let labels = std::collections::BTreeMap::new;
    let placement =
        Placement { require: fields.or("require", labels()), prefer: fields.or("prefer", labels()) };
    fields.close();
    Some(placement)
}

fn read_mount(mut fields: Fields<'_>) -> Option<Mount> {
    let (volume, target) = (fields.required("volume"), fields.required("target"));
    let (path, read_only) = (fields.optional("path"), fields.or("read_only", false));
    let prefetch = fields.one_or_many("prefetch");
    fields.close();
    Some(Mount { volume: volume?, path, target: target?, read_only, prefetch })
}

fn read_webhook(mut fields: Fields<'_>) -> Option<Webhook> {
    let (url, secret) = (fields.required("url"), fields.required("secret"));
    let events = fields.one_or_many("events");
    fields.close();
    Some(Webhook { url: url?, secret: secret?, events })
}

/// A table being read: what was taken, what is left, what was wrong.
struct Fields<'f> {
    path: String,
    left: Map<String, Value>,
    known: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Fields<'f> {
    fn open(path: &str, value: Value, faults: &'f mut Vec<Fault>) -> Option<Self> {
        match value {
            Value::Object(left) => Some(Self { path: path.into(), left, known: Vec::new(), faults }),
            other => {
                let field = if path.is_empty() { "the file" } else { path };
                faults.push(Fault::new(field, &other, "a table of fields"));
                None
            }
        }
    }

    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn optional<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name)?;
        let path = self.at(name);
        self.read(&path, value)
    }

    fn read<T: DeserializeOwned>(&mut self, path: &str, value: Value) -> Option<T> {
        let shown = value.clone();
        match serde_path_to_error::deserialize(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let inner = error.path().to_string();
                let path = match inner.as_str() {
                    "." => path.to_owned(),
                    inner if inner.starts_with('[') => format!("{path}{inner}"),
                    inner => format!("{path}.{inner}"),
                };
                let allowed =
                    error.into_inner().to_string().replace("expected u32", "expected a whole number from 0");
                self.faults.push(Fault::new(path, &shown, allowed));
                None
            }
        }
    }

    fn or<T: DeserializeOwned>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    fn required<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        if !self.left.contains_key(name) {
            self.known.push(name);
            let path = self.at(name);
            self.faults.push(Fault::missing(path));
            return None;
        }
        self.optional(name)
    }

    /// A list, or the one value it would hold.
    fn one_or_many<T: DeserializeOwned>(&mut self, name: &'static str) -> Vec<T> {
        if let Some(value @ Value::String(_)) = self.left.get(name).cloned() {
            self.left.insert(name.into(), Value::Array(vec![value]));
        }
        self.or(name, Vec::new())
    }

    fn table<T>(&mut self, name: &'static str, read: fn(Fields<'_>) -> Option<T>) -> Option<T> {
        let value = self.take(name)?;
        let path = self.at(name);
        Fields::open(&path, value, self.faults).and_then(read)
    }

    fn tables<T>(&mut self, name: &'static str, read: fn(Fields<'_>) -> Option<T>) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let path = self.at(name);
        let Value::Array(values) = value else {
            self.faults.push(Fault::new(path, &value, "a list of tables"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            tables.extend(Fields::open(&format!("{path}[{i}]"), value, self.faults).and_then(read));
        }
        tables
    }

    /// Notes what nobody asked for.
    fn close(self) {
        for (name, value) in &self.left {
            let nearest = self
                .known
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let allowed = match nearest {
                Some(near) if strsim::jaro_winkler(near, name) > 0.8 => {
                    format!("unknown field; did you mean {near:?}?")
                }
                _ => format!("unknown field; allowed are {}", self.known.join(", ")),
            };
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            self.faults.push(Fault::new(path, value, allowed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Size, Span};

    #[test]
    fn what_is_wrong_with_a_webhook_is_said() {
        let hook = |rest: &str| faults(&format!("image = \"i\"\n[[webhooks]]\n{rest}\n"));
        assert_eq!(hook("url = \"https://x/y\""), ["webhooks[0].secret: required, and missing"]);
        let said = hook("url = \"ftp://x/y\"\nsecret = \"S\"");
        assert!(said[0].contains("webhooks[0].url") && said[0].contains("https://"), "{said:?}");
        let said = hook("url = \"https://x/y\"\nsecret = \"S\"\nevents = [\"job.end\"]");
        assert!(said[0].contains("job.ended"), "{said:?}");
    }

    const FULL: &str = r#"
        name = "resnet50"
        image = "registry.example/vision/train:1.4"
        command = ["python", "train.py", "--data", "/data"]
        env = { EPOCHS = 90, AMP = true }
        secrets = ["WANDB_API_KEY"]
        team = "vision"
        priority = "high"
        timeout = "12h30m"
        retries = 2

        [resources]
        gpus = 2
        gpu_model = "P100"
        gpu_memory = "16GiB"
        cuda = "11.8"
        cpus = 8
        memory = "32GiB"

        [placement]
        require = { tier = "bare-metal" }
        prefer = { disk = "nvme" }

        [[mounts]]
        volume = "data"
        path = "imagenet"
        target = "/data"
        read_only = true
    "#;

    fn faults(text: &str) -> Vec<String> {
        match parse(text, Format::Toml) {
            Err(SpecError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
            other => panic!("expected faults, got {other:?}"),
        }
    }

    #[test]
    fn the_three_formats_give_the_same_job() {
        let spec = parse(FULL, Format::Toml).expect("valid");
        assert_eq!(spec.timeout, Some(Span::secs(45_000)));
        assert_eq!(spec.resources.gpu_memory, Some(Size(16 << 30)));
        assert_eq!(spec.resources.gpu_model, ["P100"]);
        assert_eq!(spec.env.values().map(|v| v.0.as_str()).collect::<Vec<_>>(), ["true", "90"]);
        let json = serde_json::to_string(&spec).expect("serialises");
        assert_eq!(parse(&json, Format::Json).expect("valid"), spec);
        let yaml = serde_saphyr::to_string(&spec).expect("serialises");
        assert_eq!(parse(&yaml, Format::Yaml).expect("valid"), spec);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let faults = faults(
            r#"
            imgae = "busybox"
            command = []
            timeout = "soon"
            priority = "urgent"
            [resources]
            gpus = -1
            gpu_memory = "16"
            [[mounts]]
            volume = "../etc"
            target = "data"
            "#,
        );
        insta::assert_snapshot!(faults.join("\n"), @r#"
        image: required, and missing
        priority = "urgent": unknown variant `urgent`, expected one of `low`, `normal`, `high`
        timeout = "soon": "soon" is not a duration such as 90s or 12h30m
        resources.gpus = -1: invalid value: integer `-1`, expected a whole number from 0
        resources.gpu_memory = "16": "16" is not a size such as 512MiB or 16GiB
        mounts[0].volume = "../etc": "../etc" is not a valid volume name: 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit
        imgae = "busybox": unknown field; did you mean "image"?
        command = []: at least a program's name, or leave the field out for what the image says
        "#);
    }

    #[test]
    fn rules_across_fields_are_checked_too() {
        let faults = faults(
            r#"
            image = "busybox"
            command = []
            timeout = "1m"
            warn = "5m"
            [resources]
            gpu_model = "P100"
            [[mounts]]
            volume = "data"
            path = "../other"
            target = "data"
            "#,
        );
        insta::assert_snapshot!(faults.join("\n"), @r#"
        command = []: at least a program's name, or leave the field out for what the image says
        warn = "5m": shorter than timeout, which must be given with it
        resources.gpu_model = ["P100"]: gpus of 1 or more, gpu_share or mig beside it
        mounts[0].target = "data": an absolute path other than /, without '..'
        mounts[0].path = "../other": a path below the volume: relative, without '..'
        "#);
    }

    #[test]
    fn text_that_is_no_job_says_where() {
        let error = parse("image = [", Format::Toml).expect_err("syntax");
        assert!(error.to_string().starts_with("not valid TOML: TOML parse error at line 1"), "{error}");
        let error = parse("just words", Format::Yaml).expect_err("no table");
        assert_eq!(error.to_string(), "the file = \"just words\": a table of fields");
    }

    #[test]
    fn a_spec_of_two_megabytes_is_refused_by_its_size() {
        let error = parse(&" ".repeat(2_000_000), Format::Toml).expect_err("too large");
        assert!(error.to_string().starts_with("2000000 bytes are too large for a job"), "{error}");
    }
}
