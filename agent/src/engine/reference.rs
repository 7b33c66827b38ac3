//! An image's name as people write it, taken apart as Docker does (distribution/reference).
//!
//! A job chooses this text and it becomes part of a request's path, so what is no reference goes
//! no further than here.

/// A name that is well formed. Whether there is such an image, only the engine and the registry know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry's host and port; `docker.io` where none is named.
    pub registry: String,
    /// The name as given, without tag and digest.
    pub name: String,
    /// The digest if there is one, else the tag, else `latest`.
    pub version: String,
    /// The name within the registry; Docker Hub's own images are below `library/`.
    pub path: String,
}

impl Reference {
    /// Takes a reference apart.
    ///
    /// # Errors
    /// Which part is not well formed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(format!("{text:?} does not end in a digest such as sha256:…"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(format!("{text:?} has a tag of other than letters, digits, '_', '-' and '.'"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let is_valid = registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && registry.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
        if !is_valid {
            return Err(format!("{text:?} names no valid registry"));
        }
        if !path.split('/').all(is_component) {
            return Err(format!(
                "{text:?} is no image name: lower-case letters, digits, and '.', '_' or '-' between them"
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            name: name.to_owned(),
            version: digest.or(tag).unwrap_or("latest").to_owned(),
            path,
        })
    }

    /// Whether the other is of the same repository, whatever its tag or digest.
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self.registry == other.registry && self.path == other.path
    }
}

/// What stands before the first slash is a host if it could be no part of a Docker Hub name.
fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_component(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty()
            && algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b))
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[rstest]
    #[case("busybox", "docker.io", "busybox", "latest")]
    #[case("library/busybox:1", "docker.io", "library/busybox", "1")]
    #[case("docker.io/library/busybox:1", "docker.io", "docker.io/library/busybox", "1")]
    #[case("index.docker.io/a/b", "docker.io", "index.docker.io/a/b", "latest")]
    #[case("ghcr.io/a/b:v1.2-rc_3", "ghcr.io", "ghcr.io/a/b", "v1.2-rc_3")]
    #[case("localhost/a", "localhost", "localhost/a", "latest")]
    #[case("127.0.0.1:5000/a/b", "127.0.0.1:5000", "127.0.0.1:5000/a/b", "latest")]
    #[case("127.0.0.1:5000/a/b:1", "127.0.0.1:5000", "127.0.0.1:5000/a/b", "1")]
    #[case("[::1]:5000/a", "[::1]:5000", "[::1]:5000/a", "latest")]
    #[case("a/b_c/d__e-f.g", "docker.io", "a/b_c/d__e-f.g", "latest")]
    fn a_reference_is_taken_apart(
        #[case] text: &str,
        #[case] registry: &str,
        #[case] name: &str,
        #[case] version: &str,
    ) {
        let found = Reference::parse(text).expect("a reference");
        assert_eq!((&*found.registry, &*found.name, &*found.version), (registry, name, version));
    }

    #[test]
    fn a_digest_goes_before_a_tag() {
        let found = Reference::parse(&format!("quay.io/a/b:1@{DIGEST}")).expect("a reference");
        assert_eq!((&*found.name, &*found.version), ("quay.io/a/b", DIGEST));
    }

    #[rstest]
    #[case("")]
    #[case("../containers/x")]
    #[case("a/../../info")]
    #[case("a?all=true")]
    #[case("a#b")]
    #[case("a b")]
    #[case("Upper")]
    #[case("a:")]
    #[case("a@sha256:short")]
    #[case("/a")]
    #[case("a//b")]
    #[case("user@host/a")]
    fn what_is_no_reference_is_refused(#[case] text: &str) {
        assert!(Reference::parse(text).is_err());
    }

    #[test]
    fn short_and_full_names_are_one_repository() {
        let same = |a: &str, b: &str| {
            let parse = |text| Reference::parse(text).expect("a reference");
            parse(a).is_same_repository(&parse(b))
        };
        assert!(same("busybox:1", "docker.io/library/busybox"));
        assert!(same("a/b", "index.docker.io/a/b:2"));
        assert!(!same("a/b", "ghcr.io/a/b"));
    }
}
