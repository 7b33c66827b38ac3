//! From the API's answers to what they mean: in one place, by status and by the engine's words.

use bollard::errors::Error;

use crate::engine::{ContainerId, EngineError, credentials::registry};

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
        Call::Create(_) if says("No command specified") || says("no command or entrypoint") => {
            EngineError::BadCommand {
                code: 127,
                detail: "the job says no command and the image has none".into(),
            }
        }
        Call::Create(_) | Call::Container(_)
            if says("could not select device driver") || says("nvidia-container") =>
        {
            EngineError::GpusMissing { detail }
        }
        Call::Create(_) | Call::Container(_)
            if says("bind source path does not exist")
                || says("error mounting")
                || says("invalid mount config") =>
        {
            EngineError::MountFailed { detail }
        }
        Call::Container(_)
            if says("executable file not found")
                || says("no such file or directory: unknown") && says("exec") =>
        {
            EngineError::BadCommand { code: 127, detail: short(&detail) }
        }
        Call::Container(_) if says("permission denied") && says("exec") => {
            EngineError::BadCommand { code: 126, detail: short(&detail) }
        }
        Call::Container(_) if says("setting rlimit") => EngineError::LimitsRefused { detail },
        Call::Container(id) if status == 404 => EngineError::NoSuchContainer { id: id.to_string() },
        Call::Create(_) | Call::Container(_) | Call::Other => EngineError::Other { call, detail },
    }
}

fn image_answer(call: &'static str, image: &str, status: u16, detail: String) -> EngineError {
    let lower = detail.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let image = image.to_owned();
    if says(&[
        "unauthorized",
        "access denied",
        "authentication required",
        "no basic auth",
        "denied:",
        "forbidden",
    ]) {
        let registry = registry(&image).to_owned();
        EngineError::NoAccess { image, registry, detail }
    } else if says(&["manifest unknown", "not found: manifest", "no such image", "name unknown", "not found"])
        || status == 404 && !says(&["connection", "timeout"])
        || says(&["invalid reference format"])
    {
        EngineError::NoSuchImage { image, detail }
    } else if says(&[
        "connection refused",
        "no such host",
        "timeout",
        "i/o",
        "tls",
        "eof",
        "server gave http response",
        "toomanyrequests",
        "too many requests",
        "temporary failure",
        "503",
        "500 internal",
        "dial tcp",
        "request canceled",
        "unexpected http status",
    ]) {
        EngineError::RegistryUnavailable { image, detail }
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
    #[case(500, "Ports are not available", "the engine could not start")]
    fn what_the_engine_says_is_understood(#[case] status: u16, #[case] words: &str, #[case] expected: &str) {
        let id = ContainerId::new("x");
        let error = answer("start", Call::Container(&id), status, words.into());
        assert!(error.to_string().starts_with(expected), "{error}");
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
