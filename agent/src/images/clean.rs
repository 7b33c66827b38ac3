//! Removing images when the disk fills that they are on: those that haul has pulled, the least recently used first, until
//! there is room again. Images that people have made or pulled are theirs.

use std::{collections::BTreeSet, sync::Arc};

use chrono::TimeDelta;
use shared::{id::Timestamp, units::Size};

use super::pulled::{Entries, Entry};
use crate::{
    config::AgentConfig,
    disk::{Disk, Use, Used},
    node::Node,
    pace::Pace,
};

/// An image that a job has used so lately may be on its way into a container.
const FRESH: TimeDelta = TimeDelta::minutes(10);

/// The image to go first, of those that may.
fn next<'e>(
    entries: &'e Entries,
    spared: &BTreeSet<String>,
    now: Timestamp,
) -> Option<(&'e String, &'e Entry)> {
    let may_go = |(id, entry): &(&String, &Entry)| {
        !spared.contains(*id) && !spared.contains(&entry.name) && now - entry.used_at >= FRESH
    };
    entries.iter().filter(may_go).min_by_key(|(_, entry)| entry.used_at)
}

/// With how few inodes cleaning begins, and ends: so many times those without which no job is taken.
const FEW_INODES: u64 = 2;
const ENOUGH_INODES: u64 = 3;

/// Removes images while the disk is fuller than it should be, at every beat, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    let mut every = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    loop {
        every.tick().await;
        // As health has seen it at the last beat.
        let Some(disk) = of_images(node.disks.last()) else { continue };
        let (clean_below, target) = marks(&node.config, disk);
        if is_full(disk, clean_below, FEW_INODES) {
            clean(&node, disk, target).await;
        }
    }
}

async fn disk(node: &Node) -> Option<Disk> {
    let engine = node.engine.info().await.ok()?;
    of_images(node.disks.look(&engine, &node.config.state_dir, &node.config.outputs_dir).await)
}

/// The disk that removing images makes room on, as far as can be seen.
fn of_images(disks: Vec<Used>) -> Option<Disk> {
    disks.into_iter().find(|used| matches!(used.by, Use::Images | Use::Engine)).map(|used| used.disk)
}

/// With how much room cleaning begins, and ends. No job is taken below the floor, so it begins there at the latest;
/// at nothing it is switched off.
fn marks(config: &AgentConfig, disk: Disk) -> (Size, Size) {
    let [clean, target, floor] =
        [config.disk_clean, config.disk_target, config.disk_floor].map(|mark| mark.of(disk.size));
    if clean == Size(0) { (Size(0), Size(0)) } else { (clean.max(floor), target.max(clean).max(floor)) }
}

/// Whether there is less room than this, or fewer inodes than so many times those without which no job is taken.
fn is_full(disk: Disk, room: Size, inodes: u64) -> bool {
    room > Size(0) && (disk.free < room || disk.lacks_inodes(inodes))
}

async fn clean(node: &Node, mut disk: Disk, target: Size) {
    // What is in use, or has another name by now, is not tried again before the next beat.
    let mut spared: BTreeSet<String> = node.prefetches.images().into_iter().collect();
    if let Some((kept, _)) = node.ledger.reservation()
        && let Some((_, image)) = node.images.expected().filter(|(job, _)| *job == kept.job)
    {
        spared.insert(image);
    }
    // Whatever name it was pulled by.
    let known = spared.iter().map(|name| node.engine.image(name));
    let known = futures::future::join_all(known).await;
    spared.extend(known.into_iter().filter_map(|image| Some(image.ok()??.id)));
    while is_full(disk, target, ENOUGH_INODES) {
        let entries = node.images.pulled.entries();
        let Some((id, entry)) = next(&entries, &spared, node.clock.now()) else { return };
        match node.engine.remove_image(id).await {
            Ok(true) => {
                node.images.pulled.remove(id);
                let Size(before) = disk.free;
                let Some(now) = self::disk(node).await else { return };
                disk = now;
                let freed = Size(disk.free.bytes().saturating_sub(before));
                tracing::info!(
                    image = entry.name, used_at = %entry.used_at, freed = %freed.human(), free = %disk.free.human(),
                    "removed an image, since the disk fills"
                );
            }
            Ok(false) => {
                spared.insert(id.clone());
            }
            Err(error) => {
                tracing::warn!(%error, image = entry.name, "an image cannot be removed though the disk fills");
                spared.insert(id.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_wanted_stays() {
        let at = |minute: i64| Timestamp::from_timestamp(minute * 60, 0).expect("a time");
        let entry = |name: &str, minute| Entry { name: name.into(), size: Size(1), used_at: at(minute) };
        let entries: Entries =
            [("1", entry("a", 3)), ("2", entry("b", 2)), ("3", entry("c", 1)), ("4", entry("d", 95))]
                .into_iter()
                .map(|(id, entry)| (id.to_owned(), entry))
                .collect();
        // Another job waits for c, and 2 is in use.
        let mut spared = BTreeSet::from(["c".to_owned()]);
        assert_eq!(next(&entries, &spared, at(100)).map(|(id, _)| id.as_str()), Some("2"));
        spared.insert("2".into());
        assert_eq!(next(&entries, &spared, at(100)).map(|(id, _)| id.as_str()), Some("1"));
        spared.insert("1".into());
        assert_eq!(next(&entries, &spared, at(100)), None, "d may be on its way into a container");
        assert_eq!(next(&entries, &spared, at(105)).map(|(id, _)| id.as_str()), Some("4"));
    }

    #[test]
    fn a_disk_is_full_without_room_or_without_inodes() {
        let full = |free, inodes, inodes_free, room| {
            let disk = Disk { size: Size(1000), free: Size(free), inodes, inodes_free };
            is_full(disk, Size(room), FEW_INODES)
        };
        assert!(!full(150, 2_000_000, 20_000, 150));
        assert!(full(149, 2_000_000, 20_000, 150));
        assert!(full(150, 2_000_000, 19_999, 150));
        assert!(!full(150, 0, 0, 150), "inodes are not counted there");
        assert!(!full(0, 2_000_000, 0, 0), "switched off");
    }
}
