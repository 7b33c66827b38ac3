//! What a cloud is told of a new machine (packaging/cloud-init/aws.yaml), filled in as an operator does.

use crate::{Nfs, machine::GATEWAY, world::root};

/// User-data for AWS with these variables of the agent, the package from there, and the mount of this server, if any.
///
/// # Panics
/// When the file is not as it was.
pub fn for_aws(variables: &str, package: &str, nfs: Option<&Nfs>) -> String {
    let mut text = std::fs::read_to_string(root().join("packaging/cloud-init/aws.yaml")).expect("a file");
    let mut edit = |from: &str, to: &str| {
        assert!(text.contains(from), "no {from:?} in:\n{text}");
        text = text.replace(from, to);
    };
    let indented: String = variables.lines().map(|line| format!("      {line}\n")).collect();
    edit("      HAUL_FLEET=s3://example-bucket/fleet\n", &indented);
    edit("      AWS_REGION=eu-central-1\n", "");
    edit("      HAUL_VOLUMES=data=/mnt/data:ro:mount\n", "");
    edit("HAUL_CLAIM_AFTER=20s", "HAUL_CLAIM_AFTER=1s");
    edit("s3://example-bucket/packages/haul_amd64.deb", package);
    let Some(nfs) = nfs else {
        // "or leave these lines out"
        let (before, mount) = text.split_once("    # EDIT: the NFS server").expect("the mount");
        let (_, after) = mount.split_once("systemctl enable --now mnt-data.automount\n").expect("its end");
        return format!("{before}{after}");
    };
    // "leave it out where jobs write", says the unit of `ro`; the port is not NFS's own.
    let options = format!("s/,ro,/,/; s/,actimeo=600//; s/^Options=/&port={},/", nfs.port());
    edit("'s,^What=.*,What=nfs.example:/data,'", &format!("'s,^What=.*,What={GATEWAY}:/data,; {options}'"));
    text
}
