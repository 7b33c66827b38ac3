//! Asks a registry what it says of an image, without pulling it (OCI Distribution and Image Specifications).

use std::path::PathBuf;

use oci_client::{
    Client, Reference as Name,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::{ImageIndexEntry, OciDescriptor, OciImageIndex, OciManifest},
    secrets::RegistryAuth,
};
use serde::{Deserialize, Serialize};
use shared::job::Arch;

use crate::{
    engine::{Credential, Reference, find_credential},
    patience::Chain,
};

/// The largest configuration that is read; they have some kilobytes.
const LARGEST: i64 = 4 << 20;

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// The CPU architectures that it is for, as far as haul knows them.
    pub archs: Vec<Arch>,
    /// The environment that it sets, for the architecture that was asked for or else its first.
    pub env: Vec<(String, String)>,
}

/// An image's configuration, as far as it matters.
#[derive(Deserialize)]
struct Config {
    architecture: Arch,
    #[serde(default)]
    config: Option<Defaults>,
}

#[derive(Deserialize)]
struct Defaults {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

/// What its registry says of an image, with the credential of `docker login` where there is one.
///
/// # Errors
/// Why it does not say; never a secret.
pub async fn ask(
    reference: &Reference,
    wanted: Arch,
    credentials: Option<PathBuf>,
) -> Result<Stated, String> {
    let auth = match find_credential(credentials, &reference.registry).await? {
        Some(Credential::Password { username, password }) => RegistryAuth::Basic(username, password),
        // An identity token is good for a token service, which not all registries have.
        Some(Credential::Token(_)) | None => RegistryAuth::Anonymous,
    };
    let client = Client::new(config(&reference.registry));
    let name = name(reference);
    let said = |error: OciDistributionError| Chain(&error).to_string();
    let (manifest, _) = client.pull_manifest(&name, &auth).await.map_err(said)?;
    let (image, archs) = match manifest {
        OciManifest::Image(image) => (image, None),
        OciManifest::ImageIndex(index) => {
            let archs = archs(&index);
            let of = archs.iter().find(|(arch, _)| *arch == wanted).or(archs.first());
            let (_, digest) = of.ok_or("it is for none of amd64 and arm64")?;
            let one = name.clone_with_digest(digest.clone());
            match client.pull_manifest(&one, &auth).await.map_err(said)?.0 {
                OciManifest::Image(image) => (image, Some(archs)),
                OciManifest::ImageIndex(_) => return Err("its index leads to another".into()),
            }
        }
    };
    let config = read(&client, &name, &image.config).await?;
    let env = config.config.and_then(|defaults| defaults.env).unwrap_or_default();
    let env = env.iter().filter_map(|pair| pair.split_once('='));
    let archs =
        archs.map_or(vec![config.architecture], |archs| archs.into_iter().map(|(arch, _)| arch).collect());
    Ok(Stated { archs, env: env.map(|(name, value)| (name.into(), value.into())).collect() })
}

async fn read(client: &Client, name: &Name, of: &OciDescriptor) -> Result<Config, String> {
    if of.size > LARGEST {
        return Err(format!("its configuration has {} bytes", of.size));
    }
    let mut body = Vec::new();
    client.pull_blob(name, of, &mut body).await.map_err(|error| Chain(&error).to_string())?;
    serde_json::from_slice(&body).map_err(|error| format!("its configuration: {error}"))
}

/// The images of an index, each with the architecture that it is for. What else is in there, such as
/// attestations, says that it is for none.
fn archs(index: &OciImageIndex) -> Vec<(Arch, String)> {
    let of = |entry: &ImageIndexEntry| {
        let platform = entry.platform.as_ref()?;
        let arch = serde_json::to_value(&platform.architecture).ok()?;
        let os = serde_json::to_value(&platform.os).ok()?;
        (os == "linux").then_some((serde_json::from_value(arch).ok()?, entry.digest.clone()))
    };
    let mut archs: Vec<(Arch, String)> = index.manifests.iter().filter_map(of).collect();
    archs.dedup_by_key(|(arch, _)| *arch);
    archs
}

fn name(reference: &Reference) -> Name {
    let (registry, path) = (reference.registry.clone(), reference.path.clone());
    let version = reference.version.clone();
    if version.contains(':') {
        Name::with_digest(registry, path, version)
    } else {
        Name::with_tag(registry, path, version)
    }
}

/// Engines speak to registries on loopback without TLS (dockerd, "insecure-registry").
fn config(registry: &str) -> ClientConfig {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let is_near = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    let protocol =
        if is_near { ClientProtocol::HttpsExcept(vec![registry.to_owned()]) } else { ClientProtocol::Https };
    let user_agent = concat!("haul/", env!("CARGO_PKG_VERSION"));
    ClientConfig { protocol, user_agent, platform_resolver: None, ..ClientConfig::default() }
}
