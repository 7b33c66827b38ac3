//! Many markers at once, in few requests one after the other.

use futures::{StreamExt, TryStreamExt, stream};

use super::{Aged, Index, PARALLEL, Shelf};
use crate::{
    id::LaneId,
    store::{Listed, PAGE, StoreError},
};

/// The markers among what was listed. A key that is none is somebody else's.
pub(super) fn aged(listed: &[Listed]) -> Vec<Aged> {
    let read = |object: &Listed| Some(Aged { marker: Shelf::read(&object.key)?, modified: object.modified });
    listed.iter().filter_map(read).collect()
}

impl Index {
    /// Markers below a directory of markers, however many.
    pub(super) async fn wide(&self, prefix: &str) -> Result<Vec<Aged>, StoreError> {
        Ok(aged(&self.store.list_wide(prefix).await?))
    }

    /// All jobs that wait, parked or sent. Where they are many, lanes and teams are listed side by
    /// side.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn waiting(&self) -> Result<Vec<Aged>, StoreError> {
        let (parked, sent) = futures::join!(self.deep("index/parked"), self.deep("index/sent"));
        Ok(parked?.into_iter().chain(sent?).collect())
    }

    /// All jobs that wait in one lane.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn waiting_in(&self, lane: &LaneId) -> Result<Vec<Aged>, StoreError> {
        let (parked, sent) = (format!("index/parked/{lane}"), format!("index/sent/{lane}"));
        let (parked, sent) = futures::join!(self.deep(&parked), self.deep(&sent));
        Ok(parked?.into_iter().chain(sent?).collect())
    }

    /// Markers below a prefix that has more directories below it. One request where one page holds
    /// all.
    async fn deep(&self, prefix: &str) -> Result<Vec<Aged>, StoreError> {
        let mut dirs = vec![prefix.to_owned()];
        let mut markers = Vec::new();
        // From a shelf over its lanes to their teams.
        let depth = 4 - prefix.split('/').count();
        for level in 0..=depth {
            let pages: Vec<(String, Vec<Listed>)> = stream::iter(dirs)
                .map(|dir| async move {
                    let page = if level == depth {
                        self.store.list_wide(&dir).await
                    } else {
                        self.store.list_page(&dir, None).await
                    };
                    page.map(|page| (dir, page))
                })
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            let mut full = Vec::new();
            for (dir, page) in pages {
                if level < depth && page.len() >= PAGE {
                    full.push(dir);
                    continue;
                }
                markers.extend(aged(&page));
            }
            let below: Vec<Vec<String>> = stream::iter(full)
                .map(|dir| async move {
                    let names = self.store.list_names(&dir).await?;
                    Ok::<_, StoreError>(names.iter().map(|name| format!("{dir}/{name}")).collect())
                })
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            dirs = below.into_iter().flatten().collect();
        }
        Ok(markers)
    }
}
