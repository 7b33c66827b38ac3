//! The host's credentials for registries, read afresh for each pull: tokens expire, and helpers
//! renew them.
//!
//! A credential that cannot be read does not stop a pull: the image may be public, and `docker
//! pull` goes on without one as well. What was wrong is told when the registry then refuses.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use docker_credential::{CredentialRetrievalError, DockerCredential};

/// A helper asks a key store or a cloud's token service; one that takes longer is stuck.
const HELPER: Duration = Duration::from_secs(30);

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

/// Where an engine's client keeps what it is told by `docker login`: `config.json` in
/// `DOCKER_CONFIG`, or in `.docker` of the user's home.
pub fn usual_config() -> Option<PathBuf> {
    let own = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(own.or_else(home)?.join("config.json"))
}

/// The credential for a registry that this configuration has; none where it has none.
///
/// # Errors
/// What kept a configured credential from being read, such as a helper that is not installed;
/// never a secret.
pub async fn find(config: Option<PathBuf>, registry: &str) -> Result<Option<Credential>, String> {
    let Some(config) = config else { return Ok(None) };
    let owned = registry.to_owned();
    // On a thread of its own, which is left behind if the helper hangs.
    let read = tokio::task::spawn_blocking(move || read(&config, &owned));
    match tokio::time::timeout(HELPER, read).await {
        Ok(Ok(found)) => found,
        Ok(Err(panic)) => Err(format!("the credential for {registry} cannot be read: {panic}")),
        Err(_) => {
            Err(format!("the credential helper for {registry} did not answer in {} s", HELPER.as_secs()))
        }
    }
}

fn read(config: &Path, registry: &str) -> Result<Option<Credential>, String> {
    let file = match File::open(config) {
        Ok(file) => io::BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{} cannot be read: {e}", config.display())),
    };
    // Under this name `docker login` keeps Docker Hub's.
    let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    match docker_credential::get_credential_from_reader(file, key) {
        // Some tools leave an empty entry behind for a registry that they logged out of.
        Ok(DockerCredential::UsernamePassword(username, _)) if username.is_empty() => Ok(None),
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Credential::Password { username, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::Token(token))),
        Err(error) => refusal(&error, registry, config).map_or(Ok(None), Err),
    }
}

/// What a person should know of it; `None` where there simply is no credential.
fn refusal(error: &CredentialRetrievalError, registry: &str, config: &Path) -> Option<String> {
    use CredentialRetrievalError as E;
    let why = match error {
        E::NoCredentialConfigured | E::ConfigNotFound => return None,
        // The protocol's words for "there is none" (docker-credential-helpers).
        E::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => return None,
        // A helper's own words may hold anything, also a secret.
        E::HelperFailure { helper, .. } => format!("{helper} failed"),
        E::HelperCommunicationError => "its credential helper is not on PATH, or does not answer".into(),
        E::MalformedHelperResponse => "its credential helper's answer is not understood".into(),
        E::CredentialDecodingError => "its entry is not base64 of user:password".into(),
        E::CredentialMismatchError => "its entry holds two that differ".into(),
        E::ConfigReadError => return Some(format!("{} is not valid JSON", config.display())),
    };
    Some(format!("the credential for {registry} in {} cannot be read: {why}", config.display()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn a_password_is_found_and_never_shown() {
        // bWU6czNjcmV0 is me:s3cret.
        let (dir, path) = config(r#"{"auths":{"registry.example:5000":{"auth":"bWU6czNjcmV0"}}}"#);
        let found = read(&path, "registry.example:5000").expect("read").expect("there");
        assert_eq!(format!("{found:?}"), "REDACTED");
        assert_eq!(found, Credential::Password { username: "me".into(), password: "s3cret".into() });
        assert_eq!(read(&path, "other.example").expect("read"), None);
        assert_eq!(read(&dir.path().join("none"), "other.example").expect("read"), None);
    }

    #[test]
    fn docker_hub_has_a_key_of_its_own() {
        let (_dir, path) = config(r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6czNjcmV0"}}}"#);
        assert!(read(&path, "docker.io").expect("read").is_some());
    }

    #[test]
    fn an_identity_token_is_found() {
        let (_dir, path) = config(r#"{"auths":{"a.example":{"identitytoken":"t0ken"}}}"#);
        assert_eq!(read(&path, "a.example"), Ok(Some(Credential::Token("t0ken".into()))));
    }

    #[rstest]
    #[case("{", "is not valid JSON")]
    #[case(r#"{"auths":{"a.example":{"auth":"czNjcmV0"}}}"#, "is not base64 of user:password")]
    #[case(r#"{"credHelpers":{"a.example":"no-such-helper"}}"#, "is not on PATH")]
    fn what_is_wrong_is_said_without_the_secret(#[case] text: &str, #[case] expected: &str) {
        let (_dir, path) = config(text);
        let error = read(&path, "a.example").expect_err("cannot be read");
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_helper_that_has_none_is_no_failure_and_its_words_are_not_told() {
        let failed = |stdout: &str| CredentialRetrievalError::HelperFailure {
            helper: "docker-credential-x".into(),
            stdout: stdout.into(),
            stderr: "s3cret".into(),
        };
        let say = |error| refusal(&error, "a.example", Path::new("/c"));
        assert_eq!(say(failed("credentials not found in native keychain\n")), None);
        assert_eq!(
            say(failed("s3cret")).as_deref(),
            Some("the credential for a.example in /c cannot be read: docker-credential-x failed")
        );
    }
}
