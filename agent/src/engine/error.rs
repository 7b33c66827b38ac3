//! What an engine refuses, by what the caller can do about it.

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers.
    #[error(
        "no container engine answers at {address}: {detail}; install and start Docker, or name another with --engine"
    )]
    Unreachable {
        /// Where it was sought.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The registry does not have the image.
    #[error("there is no image {image}: {detail}")]
    NoSuchImage {
        /// Which.
        image: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry does not give it to this host.
    #[error("no access to image {image}: {detail}; on the host, run: docker login {registry}")]
    NoAccess {
        /// Which.
        image: String,
        /// Whose.
        registry: String,
        /// The registry's words.
        detail: String,
    },
    /// The registry did not answer, or not sensibly.
    #[error("the registry of image {image} does not answer: {detail}")]
    RegistryUnavailable {
        /// Which.
        image: String,
        /// What happened.
        detail: String,
    },
    /// The engine's disk is full.
    #[error("the engine has no space left: {detail}; remove images with: docker image prune")]
    NoSpace {
        /// The engine's words.
        detail: String,
    },
    /// The GPUs did not reach the container.
    #[error(
        "the GPUs did not reach the container: {detail}; check that nvidia-container-toolkit is installed on the host, and run nvidia-ctk cdi generate where GPUs go by CDI"
    )]
    GpusMissing {
        /// What happened.
        detail: String,
    },
    /// The command cannot be run in the image.
    #[error("the command cannot be run: {detail}")]
    BadCommand {
        /// What a shell would give: 127 where it is not there, 126 where it cannot be run.
        code: i64,
        /// The engine's words.
        detail: String,
    },
    /// A directory of the host cannot be mounted.
    #[error("a mount failed: {detail}")]
    MountFailed {
        /// The engine's words.
        detail: String,
    },
    /// The container was made with what the engine turns out not to do: raise limits, or give GPUs through NVIDIA's
    /// hook. Containers made from now on are asked for in another way, so this one may be made anew.
    #[error("the engine does not do all that was asked of it: {detail}")]
    AskedTooMuch {
        /// The engine's words.
        detail: String,
    },
    /// Another container has the name.
    #[error("the name {name} is taken by another container")]
    NameTaken {
        /// Which.
        name: String,
    },
    /// There is no such container.
    #[error("there is no container {id}")]
    NoSuchContainer {
        /// Which.
        id: String,
    },
    /// It did not answer in time.
    #[error("the engine did not {call} within {seconds} s")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Anything else.
    #[error("the engine could not {call}: {detail}")]
    Other {
        /// What was asked.
        call: &'static str,
        /// The engine's words.
        detail: String,
    },
}
