//! The way to an engine: its address, and the API version spoken with it.
//!
//! bollard opens a connection for each request, so a long call never stands before another, and an
//! engine that came back is reached by the next call. What it leaves to us is done here: it sends
//! paths without a version, so that an engine newer than our types would answer in its own
//! version; and it encodes credentials in plain base64 where the API wants the URL-safe alphabet.

use std::time::Duration;

use bollard::{BollardRequest, models::SystemVersion};

use super::{Call, Docker, QUICK, read};
use crate::engine::{EngineError, EngineInfo};

/// Docker's own default, on Linux.
pub(super) const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// bollard's own limit on the time to an answer's first byte. Each call has a deadline of ours,
/// and `stop` answers only after the job's grace, which may be hours.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The oldest version that has device requests (Docker 19.03).
const OLDEST: Api = Api(1, 40);

/// A version of the API; their order is that of their age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Api(usize, usize);

impl Api {
    /// What bollard's types are made from.
    const NEWEST: Self =
        Self(bollard::API_DEFAULT_VERSION.major_version, bollard::API_DEFAULT_VERSION.minor_version);

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// What is spoken with an engine that says this of itself: the newest version that both know.
fn agreed(version: &SystemVersion) -> Result<Api, String> {
    let newest = version.api_version.as_deref().and_then(Api::parse).ok_or("it names no API version")?;
    let oldest = version.min_api_version.as_deref().and_then(Api::parse).unwrap_or(OLDEST);
    let api = newest.min(Api::NEWEST);
    if api < OLDEST {
        return Err(format!(
            "its API {}.{} is older than {}.{}; update it",
            newest.0, newest.1, OLDEST.0, OLDEST.1
        ));
    }
    if api < oldest {
        return Err(format!(
            "its API begins at {}.{} and haul's ends at {}.{}; update haul",
            oldest.0,
            oldest.1,
            Api::NEWEST.0,
            Api::NEWEST.1
        ));
    }
    Ok(api)
}

/// The engine's address as Docker's own programs find it: `DOCKER_HOST`.
pub fn usual_address() -> Option<String> {
    std::env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty())
}

/// An address as given, in the form that is used; `None` for what is none.
pub(super) fn address(given: &str) -> Option<String> {
    let rest = |scheme: &str| given.strip_prefix(scheme).filter(|rest| !rest.is_empty());
    if given.starts_with('/') {
        Some(format!("unix://{given}"))
    } else if rest("unix:///").is_some() || rest("tcp://").is_some() || rest("http://").is_some() {
        Some(given.to_owned())
    } else {
        None
    }
}

/// A request as it is to be sent: to a version, if one is agreed upon, and with credentials that
/// the engine can decode.
fn amended(mut request: BollardRequest, api: Option<Api>) -> BollardRequest {
    if let Some(api) = api
        && let Some(uri) = versioned(&request.uri().to_string(), api)
        && let Ok(uri) = uri.parse()
    {
        *request.uri_mut() = uri;
    }
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth")
        && let Ok(safe) = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_").parse()
    {
        *value = safe;
        value.set_sensitive(true);
    }
    request
}

fn versioned(uri: &str, api: Api) -> Option<String> {
    let authority = uri.find("://")? + 3;
    let path = authority + uri[authority..].find('/')?;
    Some(format!("{}/v{}.{}{}", &uri[..path], api.0, api.1, &uri[path..]))
}

/// An engine that answered.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: bollard::Docker,
    pub(super) info: EngineInfo,
}

impl Docker {
    /// A client; nothing is sent by this, but a Unix socket must be there.
    fn open(&self, api: Option<Api>) -> Result<bollard::Docker, EngineError> {
        let (timeout, version) = (NO_LIMIT.as_secs(), bollard::API_DEFAULT_VERSION);
        let client = match self.address.strip_prefix("unix://") {
            Some(path) => bollard::Docker::connect_with_unix(path, timeout, version),
            None => bollard::Docker::connect_with_http(&self.address, timeout, version),
        };
        let client = client.map_err(|error| self.failed("connect", Call::Other, error))?;
        Ok(client.with_request_modifier(move |request| amended(request, api)))
    }

    /// Asks the engine what it is, and agrees with it upon a version.
    pub(super) async fn meet(&self) -> Result<Connection, EngineError> {
        let first = self.open(None)?;
        let version = self.timed("name its version", QUICK, Call::Other, first.version()).await?;
        let api = agreed(&version).map_err(|detail| EngineError::Other {
            call: "speak with haul",
            detail: format!(
                "{detail} (engine {} at {})",
                version.version.as_deref().unwrap_or("?"),
                self.address
            ),
        })?;
        let client = self.open(Some(api))?;
        let info = self.timed("describe itself", QUICK, Call::Other, client.info()).await?;
        Ok(Connection { client, info: read::info(info, &version, format!("{}.{}", api.0, api.1)) })
    }

    /// Whether anybody answers there.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        let client = self.open(None)?;
        self.timed("answer", QUICK, Call::Other, client.ping()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn says(newest: &str, oldest: &str) -> SystemVersion {
        SystemVersion {
            api_version: Some(newest.into()),
            min_api_version: Some(oldest.into()),
            ..SystemVersion::default()
        }
    }

    #[rstest]
    #[case("1.41", "1.12", Ok(Api(1, 41)))] // Docker 20.10
    #[case("1.45", "1.24", Ok(Api(1, 45)))] // Docker 26.1
    #[case("1.99", "1.44", Ok(Api::NEWEST))]
    #[case("1.39", "1.12", Err("its API 1.39 is older than 1.40; update it"))]
    #[case("1.99", "1.90", Err("its API begins at 1.90 and haul's ends at 1.53; update haul"))]
    fn the_newest_version_that_both_know_is_spoken(
        #[case] newest: &str,
        #[case] oldest: &str,
        #[case] expected: Result<Api, &str>,
    ) {
        assert_eq!(agreed(&says(newest, oldest)), expected.map_err(str::to_owned));
    }

    #[rstest]
    #[case("/run/podman/podman.sock", Some("unix:///run/podman/podman.sock"))]
    #[case("unix:///var/run/docker.sock", Some("unix:///var/run/docker.sock"))]
    #[case("tcp://10.0.0.1:2375", Some("tcp://10.0.0.1:2375"))]
    #[case("ssh://host", None)]
    #[case("unix://", None)]
    #[case("docker.sock", None)]
    fn an_address_is_a_socket_or_a_host(#[case] given: &str, #[case] expected: Option<&str>) {
        assert_eq!(address(given).as_deref(), expected);
    }

    #[test]
    fn requests_name_the_version() {
        let uri = "unix://2f76/containers/json?all=true";
        assert_eq!(versioned(uri, Api(1, 41)).as_deref(), Some("unix://2f76/v1.41/containers/json?all=true"));
    }
}
