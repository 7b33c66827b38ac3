//! What the operator says of a volume.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Mark;

/// A host directory that jobs may mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeConfig {
    /// Where it is on this host, an absolute path.
    pub path: PathBuf,
    /// No job may write to it.
    #[serde(default)]
    pub read_only: bool,
    /// Something must be mounted there; without, a directory of the host's own disk will do, such as the empty one
    /// below an NFS mount that is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountKind>,
    /// No job that mounts it is taken while it has less room than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<Mark>,
    /// The same of its inodes: each file takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free_inodes: Option<u64>,
}

/// What must be mounted. In a file: `true`, the type of a file system as in `"nfs4"`, or a list of those; of
/// `fuse` are all that begin so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "mount is true, a file system's type such as \"nfs4\", or a list of those")]
pub enum MountKind {
    /// Anything.
    Any(bool),
    /// A file system of this type.
    One(String),
    /// A file system of one of these types.
    OneOf(Vec<String>),
}

impl MountKind {
    /// Whether anything must be mounted.
    pub fn is_wanted(&self) -> bool {
        *self != Self::Any(false)
    }

    /// Whether a file system of this type will do.
    pub fn allows(&self, found: &str) -> bool {
        let is = |wanted: &String| {
            let sub = found.strip_prefix(wanted.as_str());
            sub.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match self {
            Self::Any(_) => true,
            Self::One(wanted) => is(wanted),
            Self::OneOf(all) => all.iter().any(is),
        }
    }

    /// The types, for people.
    pub fn names(&self) -> String {
        match self {
            Self::Any(_) => "any".into(),
            Self::One(wanted) => wanted.clone(),
            Self::OneOf(all) => all.join(" or "),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("true", "ext4", true)]
    #[case("\"nfs4\"", "nfs4", true)]
    #[case("\"nfs4\"", "nfs", false)]
    #[case("[\"nfs4\", \"fuse\"]", "fuse.s3fs", true)]
    #[case("\"fuse\"", "fuseblk", false)]
    fn a_mount_is_of_a_kind(#[case] wanted: &str, #[case] found: &str, #[case] allowed: bool) {
        let config: VolumeConfig =
            toml::from_str(&format!("path = \"/d\"\nmount = {wanted}")).expect("valid");
        let kind = config.mount.expect("a kind");
        assert_eq!((kind.allows(found), kind.is_wanted()), (allowed, true));
    }

    #[test]
    fn what_is_no_kind_is_refused() {
        let error =
            toml::from_str::<VolumeConfig>("path = \"/d\"\nmount = 4").expect_err("refused").to_string();
        assert!(error.contains("mount is true, a file system's type"), "{error}");
    }
}
