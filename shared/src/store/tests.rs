use url::Url;

use super::*;
use crate::clock::Chance;

fn directory(dir: &std::path::Path) -> Store {
    Store::open(&Url::from_directory_path(dir).expect("absolute")).expect("opens")
}

#[tokio::test]
async fn a_directory_conforms() {
    let dir = tempfile::tempdir().expect("temporary directory");
    conformance::suite(&directory(dir.path())).await;
}

#[tokio::test]
async fn memory_conforms() {
    conformance::suite(&Store::open(&"memory:///fleet".parse().expect("url")).expect("opens")).await;
}

#[tokio::test]
async fn a_url_of_no_store_is_refused() {
    let error = Store::open(&"ftp://host/dir".parse().expect("url")).expect_err("no store");
    assert_eq!(
        error.to_string(),
        "ftp://host/dir is no store: \"ftp\" is no kind of store; use file, s3, gs or az"
    );
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let url = "file:///proc/haul".parse().expect("url");
    let error = Store::open(&url).expect_err("not writable");
    assert_eq!(error.to_string(), "the store's directory /proc/haul cannot be used");
}

/// Many processes on one directory: the test runs itself as the other processes.
#[tokio::test]
async fn of_several_processes_one_creates_each_object() {
    const KEYS: usize = 200;
    const PROCESSES: usize = 4;
    if let Some(dir) = std::env::var_os("HAUL_TEST_STORE_DIR") {
        let store = directory(std::path::Path::new(&dir));
        let me = std::process::id().to_string();
        for n in 0..KEYS {
            let created =
                store.create(&Key::new(format!("race/{n}")), me.clone().into()).await.expect("answered");
            if created == Created::New {
                println!("won {n}");
            }
        }
        return;
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let test = "store::tests::of_several_processes_one_creates_each_object";
    let others: Vec<std::process::Child> = (0..PROCESSES)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().expect("path"))
                .args([test, "--exact", "--nocapture"])
                .env("HAUL_TEST_STORE_DIR", dir.path())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("starts")
        })
        .collect();
    let mut won = vec![0; KEYS];
    for other in others {
        let output = other.wait_with_output().expect("ends");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        for n in text.lines().filter_map(|line| line.split_once("won ").map(|(_, n)| n)) {
            won[n.parse::<usize>().expect("number")] += 1;
        }
    }
    assert_eq!(won, vec![1; KEYS]);
}

#[tokio::test]
async fn a_store_that_lets_two_creators_win_is_refused() {
    let mut store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
    store.inner = Arc::new(IgnoresConditions(object_store::memory::InMemory::new()));
    let error = probe(&store, &Chance::from_seed(1)).await.expect_err("not exclusive");
    assert!(error.to_string().contains("let 5 of 5 creators of one object win"), "{error}");
}

/// A store that takes every put, as some that speak S3 do.
#[derive(Debug)]
struct IgnoresConditions(object_store::memory::InMemory);

impl fmt::Display for IgnoresConditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store without conditional writes")
    }
}

#[async_trait::async_trait]
impl ObjectStore for IgnoresConditions {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        options.mode = PutMode::Overwrite;
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(
        &self,
        path: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
