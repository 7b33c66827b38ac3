//! Which GPUs a job gets.

use super::{
    amount::Amount,
    needs::Needs,
    offer::{GpuState, Offer, OfferedGpu},
};
use crate::id::GpuUuid;

/// The GPUs that a job of these needs gets, or `None` where too few are free.
///
/// The smallest that serve are taken, so that the large stay free for those who need them, and
/// all of one model where one model has enough: a job on mixed GPUs runs at the slowest one's
/// pace. A share goes where it leaves the least memory over ("best fit"), and to a fresh GPU only
/// where it fits on none that is shared already.
pub fn choose(needs: &Needs, offer: &Offer) -> Option<Vec<GpuUuid>> {
    let Some(gpu) = &needs.gpu else { return Some(Vec::new()) };
    if gpu.needs_newer_driver(offer) {
        return None;
    }
    let free = || offer.gpus.iter().enumerate().filter(|(_, has)| gpu.served_now_by(has));
    match gpu.amount {
        Amount::Share(_) => {
            let (_, best) =
                free().min_by_key(|(i, has)| (has.state == GpuState::Free, gpu.room_on(has), *i))?;
            Some(vec![best.uuid.clone()])
        }
        Amount::Whole(_) | Amount::Mig(_) => alike(free().collect(), gpu.amount.devices() as usize),
    }
}

fn alike(mut free: Vec<(usize, &OfferedGpu)>, wanted: usize) -> Option<Vec<GpuUuid>> {
    if free.len() < wanted {
        return None;
    }
    free.sort_by(|(i, a), (j, b)| {
        (a.memory, a.compute_capability, &a.model, i).cmp(&(b.memory, b.compute_capability, &b.model, j))
    });
    let alike = free
        .chunk_by(|(_, a), (_, b)| a.model == b.model && a.memory == b.memory)
        .find(|group| group.len() >= wanted);
    let chosen = alike.unwrap_or(&free);
    Some(chosen.iter().take(wanted).map(|(_, gpu)| gpu.uuid.clone()).collect())
}
