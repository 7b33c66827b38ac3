//! Errors that the driver reports as they happen, kept for as long as their GPU is not reset.

use std::collections::BTreeMap;

use nvml_wrapper::{
    Device, EventSet, Nvml as Library, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};

use super::{Gpu, GpuFault, Xid};

/// What has been reported of each GPU, by its index.
#[derive(Default)]
pub(super) struct Xids {
    /// Where reports arrive; none where the driver has none to give, as on virtual GPUs.
    sets: BTreeMap<u32, Option<EventSet<'static>>>,
    fatal: BTreeMap<u32, Reported>,
}

/// A fatal report.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reported {
    xid: Xid,
    /// What the GPU had drawn by then, in joules. The count begins anew when it is reset.
    energy: Option<f64>,
}

impl Reported {
    fn is_outdated(&self, energy: Option<f64>) -> bool {
        self.energy.zip(energy).is_some_and(|(then, now)| now < then)
    }
}

impl Xids {
    /// Takes what has been reported of a GPU since the last call and notes it as the GPU's fault. `gpu` has
    /// just been read.
    pub(super) fn note(&mut self, library: &'static Library, device: &Device<'static>, gpu: &mut Gpu) {
        let set = self.sets.entry(gpu.index).or_insert_with(|| listen(library, device, gpu.index));
        for number in set.iter().flat_map(reports) {
            match Xid::fatal(number) {
                Some(xid) => {
                    tracing::warn!(gpu = %gpu.uuid, %xid, "a GPU has failed");
                    self.fatal.insert(gpu.index, Reported { xid, energy: gpu.energy });
                }
                None => {
                    tracing::info!(gpu = %gpu.uuid, xid = number, "the driver reported an error of a GPU");
                }
            }
        }
        if self.fatal.get(&gpu.index).is_some_and(|reported| reported.is_outdated(gpu.energy)) {
            tracing::info!(gpu = %gpu.uuid, "a GPU was reset");
            self.fatal.remove(&gpu.index);
        }
        if let Some(reported) = self.fatal.get(&gpu.index) {
            gpu.fault = Some(GpuFault::Xid(reported.xid));
        }
    }

    /// Forgets a GPU that was lost: if it is ever seen again, it was reset.
    pub(super) fn lost(&mut self, index: u32) {
        self.sets.remove(&index);
        self.fatal.remove(&index);
    }
}

fn listen(library: &'static Library, device: &Device<'static>, index: u32) -> Option<EventSet<'static>> {
    let set = library.create_event_set().map_err(|e| e.to_string());
    let listening = set.and_then(|set| {
        device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|e| e.error.to_string())
    });
    listening
        .inspect_err(|why| tracing::debug!(index, why, "the driver does not report errors of this GPU"))
        .ok()
}

/// The numbers of what has been reported; without waiting.
fn reports(set: &EventSet<'static>) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || match set.wait(0) {
        Ok(event) => Some(match event.event_data {
            Some(XidError::Value(number)) => number,
            Some(XidError::Unknown) | None => 0,
        }),
        Err(NvmlError::Timeout) => None,
        Err(error) => {
            tracing::debug!(%error, "the driver's reports cannot be read");
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_seen_by_the_energy_that_begins_anew() {
        let xid = Xid::fatal(79).expect("fatal");
        let at = |energy| Reported { xid, energy };
        assert!(at(Some(100.0)).is_outdated(Some(1.0)));
        assert!(!at(Some(100.0)).is_outdated(Some(100.0)));
        assert!(!at(None).is_outdated(Some(1.0)) && !at(Some(1.0)).is_outdated(None));
    }
}
