//! Pulls from a real private registry, and what its refusals mean.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{Docker, TREE, engine, shell};
use crate::engine::{Engine, EngineError, PullProgress};

/// Of all three kinds that plain and URL-safe base64 write differently, at every offset.
pub const PASSWORD: &str = "a~~~b???c>>>d";

/// Of one image, as Docker pushes it from its own store and from containerd's.
const MANIFESTS: &str =
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A private registry on loopback, which engines trust without TLS.
pub struct Registry {
    dir: TempDir,
    process: Child,
    host: String,
}

impl Registry {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("bound");
        let host = free.local_addr().expect("bound").to_string();
        drop(free);
        let root = dir.path().display();
        shell(&format!("htpasswd -Bbn user '{PASSWORD}' > {root}/htpasswd"));
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: '{host}'}}\n\
             auth: {{htpasswd: {{realm: haul, path: {root}/htpasswd}}}}\n"
        );
        std::fs::write(dir.path().join("registry.yml"), config).expect("written");
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(dir.path().join("registry.yml"));
        let process = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("docker-registry is installed");
        let registry = Self { dir, process, host };
        let listens = async {
            while tokio::net::TcpStream::connect(&registry.host).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens).await.expect("the registry listens");
        registry
    }

    pub fn image(&self, tag: &str) -> String {
        format!("{}/team/app:{tag}", self.host)
    }

    /// A client configuration with this content, in a directory of its own.
    fn config(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join("config.json"), text).expect("written");
        dir.join("config.json")
    }

    pub fn with_password(&self, password: &str) -> PathBuf {
        let text =
            format!(r#"{{"auths":{{"{}":{{"username":"user","password":"{password}"}}}}}}"#, self.host);
        self.config("static", &text)
    }

    /// A configuration that names a credential helper which is not installed.
    pub fn without_helper(&self) -> PathBuf {
        let text = format!(r#"{{"credHelpers":{{"{}":"haul-no-such-helper"}}}}"#, self.host);
        self.config("broken", &text)
    }

    /// Puts an image there that the engine has nothing of.
    fn push(&self, tag: &str) {
        self.push_of(3_000_000, tag, "");
    }

    /// The same, imported with these options.
    pub fn push_with(&self, tag: &str, options: &str) {
        self.push_of(3_000_000, tag, options);
    }

    /// The same, of about so many bytes.
    fn push_of(&self, bytes: u64, tag: &str, options: &str) {
        let (image, config) = (self.image(tag), self.with_password(PASSWORD));
        let config = config.parent().expect("in a directory").display();
        shell(&format!(
            "{TREE} head -c {bytes} /dev/urandom > $tree/data; tar -C $tree -c . | docker import {options} - {image}; \
             docker --config {config} push -q {image}; docker rmi {image}"
        ));
    }

    /// Puts an index there, of images that are there already, each for an architecture.
    pub async fn push_index(&self, tag: &str, images: &[(&str, &str)]) {
        let manifests = format!("http://{}/v2/team/app/manifests", self.host);
        let client = reqwest::Client::new();
        let as_user = |request: reqwest::RequestBuilder| request.basic_auth("user", Some(PASSWORD));
        let mut entries = Vec::new();
        for (tag, arch) in images {
            let asked = as_user(client.get(format!("{manifests}/{tag}"))).header("Accept", MANIFESTS).send();
            let answer = asked.await.and_then(reqwest::Response::error_for_status).expect("it is there");
            let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
            let (digest, kind) = (header("Docker-Content-Digest"), header("Content-Type"));
            let size = answer.bytes().await.expect("read").len();
            entries.push(serde_json::json!({"mediaType": kind, "digest": digest, "size": size,
                                            "platform": {"os": "linux", "architecture": arch}}));
        }
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let put = as_user(client.put(format!("{manifests}/{tag}")))
            .header("Content-Type", INDEX)
            .body(index.to_string());
        put.send().await.and_then(reqwest::Response::error_for_status).expect("it is taken");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("sh")
            .args(["-c", &format!("docker rmi $(docker images -q '{}/team/app')", self.host)])
            .output();
    }
}

async fn with(config: PathBuf) -> Docker {
    engine().await.with_credentials(config)
}

async fn refusal(engine: &Docker, image: &str) -> EngineError {
    engine.pull(image, mpsc::channel(1).0).await.expect_err("refused")
}

#[tokio::test]
async fn an_image_is_fetched_with_progress_and_has_its_digest() {
    let registry = Registry::start().await;
    // Engines with images in containerd tell every 100 ms.
    registry.push_of(64_000_000, "1", "");
    let engine = with(registry.with_password(PASSWORD)).await;
    let (send, mut receive) = mpsc::channel(1000);
    let image = engine.pull(&registry.image("1"), send).await.expect("pulled");
    let digest = image.digest.expect("a registry gave it");
    assert!(digest.starts_with(&format!("{}/team/app@sha256:", registry.host)), "{digest}");
    assert_eq!(engine.image(&digest).await.expect("answers").map(|found| found.id), Some(image.id));

    let mut seen: Vec<PullProgress> = Vec::new();
    while let Some(progress) = receive.recv().await {
        seen.push(progress);
    }
    let last = seen.last().expect("progress was told");
    assert_eq!((last.layers_done, last.layers_total), (1, 1));
    assert!(last.bytes_done == last.bytes_total && last.bytes_total > 64_000_000, "{last:?}");
    assert!(seen.is_sorted_by_key(|progress| progress.bytes_done));
}

#[tokio::test]
async fn an_image_that_is_not_there_is_told_from_one_that_is_not_given() {
    let registry = Registry::start().await;
    let image = registry.image("none");
    let engine = with(registry.with_password(PASSWORD)).await;
    let error = refusal(&engine, &image).await;
    assert!(matches!(error, EngineError::NoSuchImage { .. }), "{error}");

    // An expired token, and no credential at all.
    let configs = [registry.with_password("expired"), registry.config("empty", "{}")];
    for config in configs {
        let error = refusal(&with(config).await, &image).await;
        assert!(matches!(error, EngineError::NoAccess { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("docker login {}", registry.host)), "{text}");
        assert!(!text.contains("expired"), "{text}");
    }
}

#[tokio::test]
async fn a_credential_that_cannot_be_read_is_told_with_the_refusal() {
    let registry = Registry::start().await;
    let engine = with(registry.without_helper()).await;
    let error = refusal(&engine, &registry.image("1")).await;
    assert!(matches!(error, EngineError::NoAccess { .. }), "{error}");
    assert!(error.to_string().contains("credential helper is not on PATH"), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_away_may_come_back() {
    let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound");
    let error = refusal(&engine().await, &format!("{free}/team/app:1")).await;
    assert!(matches!(error, EngineError::RegistryUnavailable { .. }), "{error}");
}

/// A helper is looked for on PATH, which a process cannot change safely while it runs: so this
/// test runs itself once more, with another PATH.
#[tokio::test]
async fn a_credential_helper_on_path_gives_the_password_of_now() {
    const SELF: &str =
        "engine::docker::live::registry::a_credential_helper_on_path_gives_the_password_of_now";
    if let (Ok(image), Ok(config)) = (std::env::var("HAUL_TEST_IMAGE"), std::env::var("HAUL_TEST_CONFIG")) {
        let engine = with(config.into()).await;
        let image = engine.pull(&image, mpsc::channel(1).0).await.expect("the helper's password is taken");
        assert!(image.digest.is_some());
        return;
    }
    let registry = Registry::start().await;
    registry.push("1");
    let helper = registry.dir.path().join("docker-credential-haul-test");
    let script = format!(
        "#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {}' ] && echo '{{\"Username\":\"user\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.host
    );
    std::fs::write(&helper, script).expect("written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let config = registry.config("helper", r#"{"credsStore":"haul-test"}"#);
    let path = format!("{}:{}", registry.dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", SELF, "--nocapture"])
        .envs([("PATH", path), ("HAUL_TEST_IMAGE", registry.image("1"))])
        .env("HAUL_TEST_CONFIG", config)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
