//! The object store: one for all, with S3's promises, behind each process's own connection.
//!
//! Consistent at once; a key is created by one only; listings come in pages of a thousand, so that
//! two pages may show two moments; `last_modified` is the store's own clock.

use std::{
    collections::BTreeMap,
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
    meter::Ask,
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
        self.world.meter().stored(self.world.elapsed(), key, body);
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

    /// What is right below a prefix: the next parts of longer keys, and objects.
    fn level(&self, prefix: &str) -> (Vec<String>, Vec<ObjectMeta>) {
        let map = lock(&self.map);
        let (mut common, mut objects): (Vec<String>, Vec<ObjectMeta>) = (Vec::new(), Vec::new());
        let mut from = prefix.to_owned();
        while let Some((key, object)) =
            map.range(from.clone()..).next().filter(|(key, _)| key.starts_with(prefix))
        {
            match key[prefix.len()..].split_once('/') {
                Some((dir, _)) => {
                    common.push(dir.to_owned());
                    // The first key after all those below it.
                    from = format!("{prefix}{dir}0");
                }
                None => {
                    objects.push(meta(Path::from(key.as_str()), object));
                    from = format!("{key}\0");
                }
            }
        }
        (common, objects)
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

    fn counts(&self, ask: Ask, key: &str) {
        self.objects.world.meter().store(ask, key, self.link.host.name.starts_with("desk"));
    }

    /// A write that ends a claim of a host that is away takes its time, and the host hears of it.
    async fn race(&self, key: &str) {
        let world = &self.objects.world;
        let holder = world.watch().holder(key);
        let races = match &mut world.toxics().race {
            Some(race) if self.link.host.name != race.away && holder.as_ref() == Some(&race.away) => {
                race.met = true;
                true
            }
            _ => false,
        };
        if races {
            tokio::time::sleep(world.seconds(1, 40)).await;
        }
    }

    async fn page(&self, prefix: String, after: Option<String>) -> Result<Vec<ObjectMeta>> {
        let objects = self.objects.clone();
        let what = match &after {
            None => format!("LIST {prefix}"),
            Some(after) => format!("LIST {prefix} after {after}"),
        };
        self.counts(Ask::List, &what);
        self.link.read(what, move || objects.page(&prefix, after.as_deref())).await.map_err(broken)
    }

    /// Page after page, each when it is asked for.
    fn pages(&self, prefix: Option<&Path>, after: Option<String>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let (store, begin) = (self.clone(), Some(after));
        let pages = stream::try_unfold(begin, move |place| {
            let (store, prefix) = (store.clone(), prefix.clone());
            async move {
                let Some(after) = place else { return Ok(None) };
                let page = store.page(prefix, after).await?;
                let last = page.last().filter(|_| page.len() == PAGE).map(|meta| meta.location.to_string());
                Ok::<_, Error>(Some((stream::iter(page).map(Ok), last.map(Some))))
            }
        });
        pages.try_flatten().boxed()
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
        self.counts(Ask::Put, &key);
        if create {
            self.race(&key).await;
        }
        self.link.write(what, move || objects.put(&key, &body, create)).await.map_err(broken)?
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("haul writes whole objects")
    }

    async fn get_opts(&self, location: &Path, _: GetOptions) -> Result<GetResult> {
        let (objects, path) = (self.objects.clone(), location.clone());
        self.counts(Ask::Get, location.as_ref());
        self.link.read(format!("GET {path}"), move || objects.get(&path)).await.map_err(broken)?
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Path| {
            let (store, objects) = (store.clone(), store.objects.clone());
            async move {
                let key = location.to_string();
                store.counts(Ask::Delete, &key);
                let effect = move || objects.delete(&key);
                store.link.write(format!("DELETE {location}"), effect).await.map_err(broken)?;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(prefix, Some(offset.to_string()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let below = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let (objects, inside) = (self.objects.clone(), below.clone());
        let what = format!("LIST {below} by name");
        self.counts(Ask::List, &what);
        let (common, objects) = self.link.read(what, move || objects.level(&inside)).await.map_err(broken)?;
        let more = (common.len() + objects.len()) / PAGE;
        (0..more).for_each(|_| self.counts(Ask::List, &below));
        let common_prefixes = common.into_iter().map(|dir| Path::from(format!("{below}{dir}"))).collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("haul copies nothing")
    }
}
