//! GPUs through NVIDIA's management library, which comes with the driver and is loaded when there
//! is one (NVML API Reference Guide).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use nvml_wrapper::{
    Device, Nvml as Library,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};
use shared::{id::GpuUuid, job::Version2, units::Size};

use super::{Driver, Gpu, GpuError, GpuFault, GpuProcess, Gpus, Inventory};

/// Names another library, where the driver's is in an odd place.
const LIBRARY: &str = "HAUL_NVML_LIBRARY";

/// Where the driver's library is: found by the loader; under WSL outside its paths.
const PLACES: [&str; 2] = ["libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// The driver's library.
pub struct Nvml {
    library: Library,
    name: String,
    /// GPUs as last seen, so that one that is lost is still known by name.
    seen: Mutex<BTreeMap<u32, Gpu>>,
}

impl Nvml {
    /// Loads the library; `None` on a host that has none.
    ///
    /// # Errors
    /// [`GpuError::Library`] where there is one and it does not work.
    pub fn open() -> Result<Option<Self>, GpuError> {
        let places: Vec<OsString> = match std::env::var_os(LIBRARY) {
            Some(place) => vec![place],
            None => PLACES.iter().map(OsString::from).collect(),
        };
        let named = std::env::var_os(LIBRARY).is_some();
        for place in places {
            let name = place.to_string_lossy().into_owned();
            match Library::builder().lib_path(&place).init() {
                Ok(library) => {
                    return Ok(Some(Self { library, name, seen: Mutex::default() }));
                }
                Err(NvmlError::LibloadingError(error)) if !named && is_absent(&error.to_string()) => {}
                Err(error) => return Err(failed(&name, &error)),
            }
        }
        Ok(None)
    }

    fn inventory(&self) -> Result<Inventory, NvmlError> {
        let version = self.library.sys_driver_version()?;
        // 12040 is 12.4.
        let cuda = u32::try_from(self.library.sys_cuda_driver_version()?).unwrap_or_default();
        let cuda = Version2 { major: cuda / 1000, minor: cuda % 1000 / 10 };
        let count = self.library.device_count()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gpus: Vec<Gpu> = Vec::new();
        for index in 0..count {
            match self.library.device_by_index(index).and_then(|device| read(&device, index)) {
                Ok(gpu) => {
                    seen.insert(index, gpu.clone());
                    gpus.push(gpu);
                }
                Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Err(error),
                Err(error) => gpus.extend(lost(seen.get(&index), &error.to_string())),
            }
        }
        // One that fell off the bus may not even be counted any more.
        for (index, before) in seen.iter().filter(|(index, _)| **index >= count) {
            if !gpus.iter().any(|gpu| gpu.uuid == before.uuid) {
                tracing::debug!(index, "a GPU is not counted any more");
                gpus.extend(lost(Some(before), "not counted any more"));
            }
        }
        Ok(Inventory { driver: Some(Driver { version, cuda }), gpus, simulated: false })
    }
}

/// Whether the loader found no such file, rather than a broken one.
fn is_absent(words: &str) -> bool {
    words.contains("cannot open shared object file: No such file")
}

fn failed(name: &str, error: &NvmlError) -> GpuError {
    let fix = match error {
        NvmlError::LibRmVersionMismatch => "; the driver was upgraded under it: restart the host",
        NvmlError::DriverNotLoaded => "; the driver's kernel module is not loaded: modprobe nvidia",
        NvmlError::FailedToLoadSymbol(_) => "; the driver is too old: install 510 or newer",
        NvmlError::NoPermission => "; may this user read /dev/nvidiactl?",
        _ => "",
    };
    GpuError::Library { library: name.into(), detail: format!("{error}{fix}") }
}

fn lost(before: Option<&Gpu>, why: &str) -> Option<Gpu> {
    let fault = Some(GpuFault::Lost { why: why.into() });
    // One that was never seen has no name to be listed under.
    before.map(|gpu| Gpu {
        processes: Vec::new(),
        utilization: None,
        power: None,
        temperature: None,
        fault,
        ..gpu.clone()
    })
}

/// What a card does not support is no error: consumer cards know no ECC, no power, no MIG.
fn optional<T>(value: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error @ (NvmlError::GpuLost | NvmlError::Uninitialized)) => Err(error),
        Err(_) => Ok(None),
    }
}

fn read(device: &Device<'_>, index: u32) -> Result<Gpu, NvmlError> {
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability()?;
    let part = |n: i32| u32::try_from(n).unwrap_or_default();
    let errors = optional(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?;
    let uuid = GpuUuid::new(device.uuid()?).map_err(|_| NvmlError::Unknown)?;
    let compute = optional(device.running_compute_processes())?.unwrap_or_default();
    let graphics = optional(device.running_graphics_processes())?.unwrap_or_default();
    let mut processes: Vec<GpuProcess> = compute.iter().chain(&graphics).map(process).collect();
    processes.sort_by_key(|process| process.pid);
    processes.dedup_by_key(|process| process.pid);
    Ok(Gpu {
        index,
        uuid,
        model: device.name()?,
        memory: Size(memory.total),
        memory_used: Size(memory.used),
        compute_capability: Version2 { major: part(capability.major), minor: part(capability.minor) },
        device_node: optional(device.minor_number())?
            .map(|minor| PathBuf::from(format!("/dev/nvidia{minor}"))),
        pci_bus: optional(device.pci_info())?.map(|pci| pci.bus_id),
        processes,
        utilization: optional(device.utilization_rates())?.map(|rates| rates.gpu),
        power: optional(device.power_usage())?.map(|milliwatts| f64::from(milliwatts) / 1000.0),
        temperature: optional(device.temperature(TemperatureSensor::Gpu))?,
        mig: optional(device.mig_mode())?.is_some_and(|mode| mode.current == 1),
        fault: errors.filter(|errors| *errors > 0).map(|errors| GpuFault::UncorrectableEcc { errors }),
    })
}

fn process(info: &ProcessInfo) -> GpuProcess {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", info.pid)).ok();
    GpuProcess {
        pid: info.pid,
        name: name.map(|name| name.trim_end().to_owned()),
        memory: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(Size(bytes)),
            UsedGpuMemory::Unavailable => None,
        },
    }
}

impl Gpus for Nvml {
    fn read(&self) -> Result<Inventory, GpuError> {
        self.inventory().map_err(|error| failed(&self.name, &error))
    }
}
