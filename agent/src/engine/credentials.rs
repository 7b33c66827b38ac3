//! The host's credentials for registries, read afresh for each pull: tokens expire, and helpers
//! renew them.

use std::{fmt, path::PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Password {
        /// Who.
        username: String,
        /// Never shown.
        password: String,
    },
    /// A token that stands for both.
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

/// The registry of an image, as the engine reads references: the first part is a registry if it
/// has a dot or a colon or is `localhost`, else Docker Hub is meant (distribution/reference).
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The host's credential for an image's registry; none where it has none. `config` is the
/// engine's client configuration, `~/.docker/config.json` without.
///
/// # Errors
/// What kept a configured credential from being read, such as a helper that is not installed.
pub fn read(config: Option<PathBuf>, image: &str) -> Result<Option<Credential>, String> {
    let registry = registry(image);
    // Under this name `docker login` keeps Docker Hub's.
    let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let found = match config {
        None => docker_credential::get_credential(key),
        Some(path) => match std::fs::File::open(&path) {
            Ok(file) => docker_credential::get_credential_from_reader(file, key),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
        },
    };
    match found {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Credential::Password { username, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::Token(token))),
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound
            | CredentialRetrievalError::ConfigReadError,
        ) => Ok(None),
        Err(error) => Err(format!("the credential for {registry} cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("busybox", "docker.io")]
    #[case("library/busybox:1", "docker.io")]
    #[case("ghcr.io/a/b@sha256:00", "ghcr.io")]
    #[case("localhost/a", "localhost")]
    #[case("127.0.0.1:5000/a/b:1", "127.0.0.1:5000")]
    fn the_registry_is_the_first_part_if_it_is_a_host(#[case] image: &str, #[case] expected: &str) {
        assert_eq!(registry(image), expected);
    }

    #[test]
    fn a_password_is_found_and_never_shown() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("config.json");
        // bWU6czNjcmV0 is me:s3cret.
        std::fs::write(&path, r#"{"auths":{"registry.example:5000":{"auth":"bWU6czNjcmV0"}}}"#)
            .expect("written");
        let found = read(Some(path.clone()), "registry.example:5000/a:1").expect("read").expect("there");
        assert_eq!(format!("{found:?}"), "REDACTED");
        assert_eq!(found, Credential::Password { username: "me".into(), password: "s3cret".into() });
        assert_eq!(read(Some(path), "other.example/a").expect("read"), None);
        assert_eq!(read(Some(dir.path().join("none")), "a").expect("read"), None);
    }
}
