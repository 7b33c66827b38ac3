//! Secrets: files of the host, read when a job that names them starts, and never shown.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use shared::job::SecretName;

/// A value that no log or listing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that hands it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// This host has none of that name.
    #[error("this host does not hold secret {0}")]
    Missing(SecretName),
    /// Its file cannot be read as text.
    #[error("secret {name} cannot be read from {}", path.display())]
    Unreadable {
        /// Which.
        name: SecretName,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where the host's secrets lie: one file each, named as the secret, such as systemd's
/// `LoadCredential=` makes them.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    dir: Option<PathBuf>,
}

impl Secrets {
    /// Secrets in this directory; none without.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The first of these that the host does not hold.
    pub fn missing<'n>(&self, names: &'n [SecretName]) -> Option<&'n SecretName> {
        names.iter().find(|name| !self.path(name).is_some_and(|path| path.is_file()))
    }

    /// Of a directory, `LoadCredential=secrets:DIR` makes files that are named `secrets_NAME` (`systemd.exec(5)`).
    fn path(&self, name: &SecretName) -> Option<PathBuf> {
        let dir = self.dir.as_ref()?;
        let from_directory = dir.join(format!("secrets_{name}"));
        Some(if from_directory.is_file() { from_directory } else { dir.join(name.as_str()) })
    }

    /// The values of these, read afresh. A newline at the end, as editors leave it, is cut.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn read(&self, names: &[SecretName]) -> Result<BTreeMap<SecretName, Secret>, SecretError> {
        let read = |name: &SecretName| {
            let path = self.path(name).ok_or_else(|| SecretError::Missing(name.clone()))?;
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok((name.clone(), Secret(text.strip_suffix('\n').unwrap_or(&text).to_owned()))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(SecretError::Missing(name.clone())),
                Err(source) => Err(SecretError::Unreadable { name: name.clone(), path, source }),
            }
        };
        names.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("KEY"), "s3cret\n").expect("written");
        let names: Vec<SecretName> = vec!["KEY".parse().expect("valid")];
        let secrets = Secrets::new(Some(dir.path().into()));
        assert_eq!(secrets.missing(&names), None);
        let read = secrets.read(&names).expect("there");
        assert_eq!(read[&names[0]].expose(), "s3cret");
        assert!(!format!("{read:?}").contains("s3cret"));
    }

    #[test]
    fn a_secret_of_a_credentials_directory_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("secrets_KEY"), "s3cret").expect("written");
        let names: Vec<SecretName> = vec!["KEY".parse().expect("valid"), "NONE".parse().expect("valid")];
        let secrets = Secrets::new(Some(dir.path().into()));
        assert_eq!(secrets.missing(&names), Some(&names[1]));
        assert_eq!(secrets.read(&names[..1]).expect("there")[&names[0]].expose(), "s3cret");
    }

    #[test]
    fn a_secret_that_is_not_there_is_named() {
        let names: Vec<SecretName> = vec!["KEY".parse().expect("valid")];
        let error = Secrets::new(None).read(&names).expect_err("missing");
        assert_eq!(error.to_string(), "this host does not hold secret KEY");
    }
}
