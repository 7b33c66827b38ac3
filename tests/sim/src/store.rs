//! The object store: one for all, with S3's promises, behind each process's own connection.
//!
//! Consistent at once; a key is created by one only; listings come in pages of a thousand, so that
//! two pages may show two moments; `last_modified` is the store's own clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use shared::id::Timestamp;

use crate::{
    clock::epoch,
    host::{Broken, Link},
    world::{World, lock},
};

/// How many keys a page of a listing has.
const PAGE: usize = 1000;

/// How often a creator hears of a conflict where there is none (S3 answers 409 to both sides of a
/// race).
const FALSE_CONFLICT: f64 = 0.002;

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    tag: u64,
    modified: Timestamp,
}

/// All objects.
pub struct Objects {
    world: World,
    map: Mutex<BTreeMap<String, Object>>,
}

impl Objects {
    /// None yet.
    pub fn new(world: &World) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), map: Mutex::default() })
    }

    fn put(&self, key: &str, body: &Bytes, create: bool) -> Result<PutResult> {
        let mut map = lock(&self.map);
        if create && (map.contains_key(key) || self.world.odds(FALSE_CONFLICT)) {
            return Err(Error::AlreadyExists { path: key.into(), source: "412".into() });
        }
        // In whole seconds, as S3 has it.
        let modified = epoch() + Duration::from_secs(self.world.elapsed().as_secs());
        let tag = map.get(key).map_or(1, |object| object.tag + 1);
        map.insert(key.to_owned(), Object { body: body.clone(), tag, modified });
        drop(map);
        self.world.watch().stored(&self.world, key, body);
        Ok(PutResult { e_tag: Some(tag.to_string()), version: None, extensions: Default::default() })
    }

    fn get(&self, path: &Path) -> Result<GetResult> {
        let Some(object) = lock(&self.map).get(path.as_ref()).cloned() else {
            return Err(Error::NotFound { path: path.to_string(), source: "404".into() });
        };
        let meta = meta(path.clone(), &object);
        let range = 0..meta.size;
        let payload = GetResultPayload::Stream(stream::once(async { Ok(object.body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete(&self, key: &str) {
        if lock(&self.map).remove(key).is_some() {
            self.world.watch().deleted(&self.world, key);
        }
    }

    fn page(&self, prefix: &str, after: Option<&str>) -> Vec<ObjectMeta> {
        let map = lock(&self.map);
        let from = after.unwrap_or(prefix).to_owned();
        map.range(from..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after != Some(key.as_str()))
            .take(PAGE)
            .map(|(key, object)| meta(Path::from(key.as_str()), object))
            .collect()
    }
}

fn meta(location: Path, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: object.modified,
        size: object.body.len() as u64,
        e_tag: Some(object.tag.to_string()),
        version: None,
    }
}

/// One process's connection to the store.
#[derive(Clone)]
pub struct SimStore {
    objects: Arc<Objects>,
    link: Link,
}

impl SimStore {
    /// A connection.
    pub fn new(objects: &Arc<Objects>, link: Link) -> Self {
        Self { objects: objects.clone(), link }
    }

    async fn page(&self, prefix: String, after: Option<String>) -> Result<Vec<ObjectMeta>> {
        let objects = self.objects.clone();
        let what = format!("LIST {prefix}");
        self.link.read(what, move || objects.page(&prefix, after.as_deref())).await.map_err(broken)
    }

    async fn all(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut found: Vec<ObjectMeta> = Vec::new();
        loop {
            let after = found.last().map(|meta| meta.location.to_string());
            let page = self.page(prefix.clone(), after).await?;
            let last = page.len() < PAGE;
            found.extend(page);
            if last {
                return Ok(found);
            }
        }
    }
}

fn broken(Broken: Broken) -> Error {
    Error::Generic { store: "sim", source: "no answer".into() }
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (objects, key, body) = (self.objects.clone(), location.to_string(), Bytes::from(payload));
        let create = matches!(opts.mode, PutMode::Create);
        let what = format!("{} {key}", if create { "CREATE" } else { "PUT" });
        self.link.write(what, move || objects.put(&key, &body, create)).await.map_err(broken)?
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("haul writes whole objects")
    }

    async fn get_opts(&self, location: &Path, _: GetOptions) -> Result<GetResult> {
        let (objects, path) = (self.objects.clone(), location.clone());
        self.link.read(format!("GET {path}"), move || objects.get(&path)).await.map_err(broken)?
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Path| {
            let (store, objects) = (store.clone(), store.objects.clone());
            async move {
                let key = location.to_string();
                let effect = move || objects.delete(&key);
                store.link.write(format!("DELETE {location}"), effect).await.map_err(broken)?;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let found = async move { store.all(prefix).await.map(|found| stream::iter(found).map(Ok)) };
        stream::once(found).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let below = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut common = BTreeSet::new();
        let mut objects = Vec::new();
        for meta in self.all(prefix.cloned()).await? {
            let rest = meta.location.as_ref().strip_prefix(below.as_str()).unwrap_or_default();
            match rest.split_once('/') {
                Some((dir, _)) => {
                    common.insert(Path::from(format!("{below}{dir}")));
                }
                None => objects.push(meta),
            }
        }
        let common_prefixes = common.into_iter().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("haul copies nothing")
    }
}
