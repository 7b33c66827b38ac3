//! From the API's answers to what they mean: in one place, by status and by the engine's words.

use bollard::errors::Error;

use crate::engine::{ContainerId, EngineError, reference::Reference};

/// What a call was about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call<'c> {
    /// An image, local or in its registry.
    Image(&'c str),
    /// The making of a container of this name.
    Create(&'c str),
    /// A container.
    Container(&'c ContainerId),
    /// The engine itself.
    Other,
}

/// What an error means.
pub(super) fn classify(address: &str, call: &'static str, about: Call<'_>, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            answer(call, about, status_code, message)
        }
        Error::DockerStreamError { error } => answer(call, about, 0, error),
        // bollard's own limit is out of reach; each call has ours.
        Error::RequestTimeoutError => EngineError::Timeout { call, seconds: super::SLOW.as_secs() },
        Error::IOError { err } => {
            EngineError::Unreachable { address: address.into(), detail: err.to_string() }
        }
        Error::HyperResponseError { err } => {
            EngineError::Unreachable { address: address.into(), detail: err.to_string() }
        }
        Error::HyperLegacyError { err } => {
            let mut detail = err.to_string();
            let mut source = std::error::Error::source(&err);
            while let Some(cause) = source {
                detail = cause.to_string();
                source = cause.source();
            }
            if detail.contains("Permission denied") {
                detail.push_str(": run as root, or as a member of the socket's group (docker)");
            }
            EngineError::Unreachable { address: address.into(), detail }
        }
        Error::SocketNotFoundError(_) => {
            EngineError::Unreachable { address: address.into(), detail: "there is no socket".into() }
        }
        other => EngineError::Other { call, detail: other.to_string() },
    }
}

/// What the engine's words mean. A status of 0 stands for words within a stream.
fn answer(call: &'static str, about: Call<'_>, status: u16, detail: String) -> EngineError {
    let says = |text: &str| detail.contains(text);
    if says("no space left on device") {
        return EngineError::NoSpace { detail };
    }
    match about {
        Call::Image(image) => image_answer(call, image, status, detail),
        Call::Create(name) if status == 409 || says("is already in use") => {
            EngineError::NameTaken { name: name.into() }
        }
        Call::Create(_) if says("No such image") => {
            EngineError::Other { call, detail: format!("the image was removed meanwhile: {detail}") }
        }
        Call::Create(_)
            if says("No command specified")
                || says("no command specified")
                || says("no command or entrypoint") =>
        {
            EngineError::BadCommand {
                code: 127,
                detail: "the job says no command and the image has none".into(),
            }
        }
        Call::Create(_) | Call::Container(_) if is_about_gpus(&detail) => EngineError::GpusMissing { detail },
        Call::Create(_) | Call::Container(_)
            if says("bind source path does not exist")
                || says("error mounting")
                || says("invalid mount config")
                || says("statfs ") =>
        {
            EngineError::MountFailed { detail }
        }
        // What the image lacks that the job names: a user, a directory.
        Call::Create(_) | Call::Container(_)
            if says("no matching entries in")
                || says("Cannot mkdir: ")
                || says("working directory")
                || says("chdir to cwd") =>
        {
            EngineError::BadCommand { code: 126, detail }
        }
        Call::Container(_)
            if says("not found in $PATH") || says("no such file or directory") && says("exec: ") =>
        {
            EngineError::BadCommand { code: 127, detail: short(&detail) }
        }
        Call::Container(_) if says("exec: ") && (says("permission denied") || says("exec format error")) => {
            EngineError::BadCommand { code: 126, detail: short(&detail) }
        }
        // By runc and by crun.
        Call::Container(_) if says("setting rlimit") || says("setrlimit `RLIMIT_") => {
            EngineError::AskedTooMuch { detail }
        }
        Call::Container(id) if status == 404 => EngineError::NoSuchContainer { id: id.to_string() },
        Call::Create(_) | Call::Container(_) | Call::Other => EngineError::Other { call, detail },
    }
}

/// No driver for the request, NVIDIA's hook refusing, a CDI name that nobody knows, or a node that
/// is gone from the host.
fn is_about_gpus(detail: &str) -> bool {
    ["could not select device driver", "nvidia-container", "CDI device", "custom device \"/dev/nvidia"]
        .iter()
        .any(|words| detail.contains(words))
}

/// Words for a registry that refuses this host.
const REFUSED: [&str; 7] = [
    "unauthorized:",
    "401 unauthorized",
    "access denied",
    "authentication required",
    "no basic auth",
    "denied:",
    "403 forbidden",
];

/// Words for a registry that answers, and has no such image for this host.
const NONE: [&str; 6] = [
    "manifest unknown",
    "not found: manifest",
    "no such image",
    "name unknown",
    "no matching manifest",
    "invalid reference format",
];

/// Words for a registry that does not answer, or not now.
const AWAY: [&str; 18] = [
    "connection refused",
    "connection reset",
    "no such host",
    "no route to host",
    "network is unreachable",
    "i/o timeout",
    "handshake timeout",
    "deadline exceeded",
    "timeout exceeded",
    "unexpected eof",
    ": eof",
    "x509:",
    "http response to https",
    "dial tcp",
    "request canceled",
    "unexpected http status",
    "temporary failure",
    "service unavailable",
];

fn image_answer(call: &'static str, image: &str, status: u16, detail: String) -> EngineError {
    let registry = Reference::parse(image).map_or_else(|_| "docker.io".into(), |image| image.registry);
    // An image's name may hold any of the words.
    let lower = detail.to_lowercase().replace(image, "");
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let image = image.to_owned();
    if says(&["toomanyrequests", "too many requests", "pull rate limit"]) {
        EngineError::RegistryUnavailable { image, detail }
    } else if says(&REFUSED) {
        EngineError::NoAccess { image, registry, detail }
    } else if says(&NONE) {
        EngineError::NoSuchImage { image, detail }
    } else if says(&AWAY) {
        EngineError::RegistryUnavailable { image, detail }
    } else if status == 404 {
        EngineError::NoSuchImage { image, detail }
    } else {
        EngineError::Other { call, detail }
    }
}

/// The runtime's words without its own call stack: what follows the last `exec: `.
fn short(detail: &str) -> String {
    let text = detail.rsplit_once("exec: ").map_or(detail, |(_, text)| text);
    text.trim_end_matches(": unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Words of dockerd 20.10 and 26.1 and of registries, as they came.
    #[rstest]
    #[case(
        404,
        "manifest for localhost:5000/a:1 not found: manifest unknown: manifest unknown",
        "there is no image"
    )]
    #[case(
        404,
        "pull access denied for nope, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
        "no access to image"
    )]
    #[case(
        500,
        "Head \"http://localhost:5000/v2/a/manifests/1\": no basic auth credentials",
        "no access to image"
    )]
    #[case(
        500,
        "Get \"http://localhost:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
        "the registry of image"
    )]
    #[case(
        500,
        "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
        "the registry of image"
    )]
    #[case(0, "toomanyrequests: You have reached your pull rate limit.", "the registry of image")]
    #[case(0, "failed to register layer: write /x: no space left on device", "the engine has no space left")]
    #[case(400, "invalid reference format: repository name must be lowercase", "there is no image")]
    #[case(500, "unauthorized: authentication required", "no access to image")]
    #[case(404, "no such image: no/such: No such image: no/such:latest", "there is no image")]
    #[case(404, "no matching manifest for linux/arm64/v8 in the manifest list entries", "there is no image")]
    #[case(
        500,
        "Get \"https://localhost:5000/v2/\": x509: certificate signed by unknown authority",
        "the registry of image"
    )]
    #[case(500, "received unexpected HTTP status: 503 Service Unavailable", "the registry of image")]
    #[case(
        500,
        "error from registry: You have reached your unauthenticated pull rate limit.",
        "the registry of image"
    )]
    fn what_registries_say_is_understood(#[case] status: u16, #[case] words: &str, #[case] expected: &str) {
        let error = answer("pull", Call::Image("localhost:5000/a:1"), status, words.into());
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[rstest]
    #[case(
        500,
        "could not select device driver \"nvidia\" with capabilities: [[gpu compute utility]]",
        "the GPUs did not reach"
    )]
    #[case(
        400,
        "invalid mount config for type \"bind\": bind source path does not exist: /nope",
        "a mount failed"
    )]
    #[case(404, "No such container: x", "there is no container")]
    #[case(
        500,
        "unable to find user nobodyhere: no matching entries in passwd file",
        "the command cannot be run"
    )]
    #[case(
        400,
        "the working directory 'rel' is invalid, it needs to be an absolute path",
        "the command cannot be run"
    )]
    #[case(500, "could not select device driver \"cdi\" with capabilities: []", "the GPUs did not reach")]
    #[case(
        500,
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1",
        "the GPUs did not reach"
    )]
    #[case(
        500,
        "error gathering device information while adding custom device \"/dev/nvidia0\": no such file or directory",
        "the GPUs did not reach"
    )]
    #[case(
        500,
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error setting rlimits for ready process: error setting rlimit type 8: operation not permitted: unknown",
        "the engine does not do all"
    )]
    #[case(
        500,
        "crun: setrlimit `RLIMIT_MEMLOCK`: Operation not permitted: OCI permission denied",
        "the engine does not do all"
    )]
    #[case(
        400,
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/etc\": permission denied: unknown",
        "the command cannot be run: \"/etc\": permission denied"
    )]
    #[case(500, "Ports are not available", "the engine could not start")]
    fn what_the_engine_says_is_understood(#[case] status: u16, #[case] words: &str, #[case] expected: &str) {
        let id = ContainerId::new("x");
        let error = answer("start", Call::Container(&id), status, words.into());
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[rstest]
    #[case(400, "No command specified", "the command cannot be run: the job says no command")]
    #[case(500, "Cannot mkdir: /bin/busybox is not a directory", "the command cannot be run")]
    #[case(
        409,
        "Conflict. The container name \"/x\" is already in use by container \"9ff1\". You have to remove (or rename) that container to be able to reuse that name.",
        "the name x is taken"
    )]
    #[case(404, "No such image: no/such:latest", "the engine could not make: the image was removed")]
    #[case(
        400,
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "the engine could not make: Range of CPUs"
    )]
    fn what_cannot_be_made_is_understood(#[case] status: u16, #[case] words: &str, #[case] expected: &str) {
        let error = answer("make", Call::Create("x"), status, words.into());
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn the_words_in_an_images_own_name_mean_nothing() {
        let words = "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
        let image = "127.0.0.1:1/access/unauthorized:1";
        let error = answer("pull", Call::Image(image), 500, format!("{words} for {image}"));
        assert!(matches!(error, EngineError::RegistryUnavailable { .. }), "{error}");
    }

    #[test]
    fn a_command_that_is_not_there_is_the_jobs_own_fault() {
        let words = "failed to create shim: OCI runtime create failed: container_linux.go:380: starting container process \
                     caused: exec: \"nope\": executable file not found in $PATH: unknown";
        let error = answer("start", Call::Container(&ContainerId::new("x")), 400, words.into());
        assert_eq!(
            error.to_string(),
            "the command cannot be run: \"nope\": executable file not found in $PATH"
        );
    }
}
