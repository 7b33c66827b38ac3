//! Asks a registry what it says of an image, without pulling it (OCI Distribution and Image Specifications).

use std::path::PathBuf;

use oci_client::{
    Client, Reference as Name,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::{ImageIndexEntry, OciDescriptor, OciImageIndex, OciManifest},
    secrets::RegistryAuth,
};
use serde::{Deserialize, Serialize};
use shared::job::Arch;

use crate::{
    engine::{Credential, Reference, find_credential},
    inspect::require,
    patience::Chain,
};

/// The largest configuration that is read; they have some kilobytes.
const LARGEST: i64 = 4 << 20;

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// The CPU architectures that it is for, as far as haul knows them.
    pub archs: Vec<Arch>,
    /// What of the environment that it sets says what it demands, for the architecture that was asked for or
    /// else its first. The rest may hold secrets and is kept nowhere.
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

/// What its registry says of an image, with the credential of `docker login` where there is one. Where that cannot
/// be read it is asked all the same: the image may be public.
///
/// # Errors
/// Why it does not say; never a secret.
pub async fn ask(
    reference: &Reference,
    wanted: Arch,
    credentials: Option<PathBuf>,
) -> Result<Stated, String> {
    let found = find_credential(credentials, &reference.registry).await;
    let (auth, trouble) = match found {
        Ok(Some(Credential::Password { username, password })) => {
            (RegistryAuth::Basic(username, password), None)
        }
        // An identity token is good for a token service, which not all registries have.
        Ok(Some(Credential::Token(_)) | None) => (RegistryAuth::Anonymous, None),
        Err(trouble) => (RegistryAuth::Anonymous, Some(trouble)),
    };
    let said = |error: OciDistributionError| match &trouble {
        Some(trouble) if is_refusal(&error) => format!("{}; {trouble}", told(error)),
        Some(_) | None => told(error),
    };
    let client = Client::try_from(config(&reference.registry)).map_err(said)?;
    let name = name(reference);
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
    let config = read(&client, &name, &image.config).await?.map_err(said)?;
    let env = config.config.and_then(|defaults| defaults.env).unwrap_or_default();
    let env = env.iter().filter_map(|pair| pair.split_once('=')).filter(|(name, _)| require::is_demand(name));
    let archs =
        archs.map_or(vec![config.architecture], |archs| archs.into_iter().map(|(arch, _)| arch).collect());
    Ok(Stated { archs, env: env.map(|(name, value)| (name.into(), value.into())).collect() })
}

async fn read(
    client: &Client,
    name: &Name,
    of: &OciDescriptor,
) -> Result<Result<Config, OciDistributionError>, String> {
    if of.size > LARGEST {
        return Err(format!("its configuration has {} bytes", of.size));
    }
    let mut body = Vec::new();
    if let Err(error) = client.pull_blob(name, of, &mut body).await {
        return Ok(Err(error));
    }
    serde_json::from_slice(&body).map(Ok).map_err(|error| format!("its configuration: {error}"))
}

/// What a person should know of it. Neither an address, which may be signed, nor what a server sent instead of
/// an answer.
fn told(error: OciDistributionError) -> String {
    use OciDistributionError as E;
    match error {
        E::RequestError(error) => Chain(&error.without_url()).to_string(),
        E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => {
            "the registry refuses the credential".into()
        }
        E::ServerError { code, .. } => format!("the registry answered {code}"),
        E::RegistryError { envelope, .. } => {
            let codes = envelope.errors.iter().map(|error| format!("{:?}", error.code));
            format!("the registry answered {}", codes.collect::<Vec<_>>().join(", "))
        }
        E::ImageManifestNotFoundError(_) => "the registry has no such image".into(),
        E::RegistryTokenDecodeError(_) | E::VersionedParsingError(_) | E::ManifestParsingError(_) => {
            "the registry's answer is not understood".into()
        }
        other => Chain(&other).to_string(),
    }
}

/// Whether somebody else, or anybody, might have been told.
fn is_refusal(error: &OciDistributionError) -> bool {
    use OciDistributionError as E;
    match error {
        E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => true,
        E::ServerError { code, .. } => matches!(code, 401 | 403 | 404),
        E::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            use OciErrorCode as C;
            matches!(error.code, C::Denied | C::Unauthorized | C::ManifestUnknown | C::NameUnknown)
        }),
        E::ImageManifestNotFoundError(_) => true,
        _ => false,
    }
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
