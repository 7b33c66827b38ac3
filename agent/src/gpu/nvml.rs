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
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};
use shared::{id::GpuUuid, job::Version2, units::Size};

use super::{Driver, Gpu, GpuError, GpuFault, GpuProcess, Gpus, Inventory, Mig, Slowdown, xids::Xids};

/// Names another library, where the driver's is in an odd place.
const LIBRARY: &str = "HAUL_NVML_LIBRARY";

/// Where the driver's library is: found by the loader; under WSL outside its paths.
const PLACES: [&str; 2] = ["libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"];

/// The driver's library.
pub struct Nvml {
    library: &'static Library,
    name: String,
    /// GPUs as last seen, each with its instances, so that one that is lost is still known by name.
    seen: Mutex<BTreeMap<u32, Vec<Gpu>>>,
    xids: Mutex<Xids>,
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
                    // Once for as long as the process lives; what it reports is borrowed from it.
                    let library = Box::leak(Box::new(library));
                    return Ok(Some(Self { library, name, seen: Mutex::default(), xids: Mutex::default() }));
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
        let mut xids = self.xids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gpus: Vec<Gpu> = Vec::new();
        for index in 0..count {
            match self.read_all(index, &mut xids) {
                Ok(read) => {
                    seen.insert(index, read.clone());
                    gpus.extend(read);
                }
                Err(error @ NvmlError::FailedToLoadSymbol(_)) => return Err(error),
                // One that was never seen has no name to be listed under.
                Err(error) => {
                    let why = error.to_string();
                    let fault = match error {
                        NvmlError::GpuLost => {
                            xids.lost(index);
                            GpuFault::Lost { why }
                        }
                        _ => GpuFault::Unreadable { why },
                    };
                    gpus.extend(seen.get(&index).into_iter().flatten().map(|gpu| unseen(gpu, &fault)));
                }
            }
        }
        // One that fell off the bus may not even be counted any more.
        for before in seen.range(count..).flat_map(|(_, before)| before) {
            if !gpus.iter().any(|gpu| gpu.uuid == before.uuid) {
                tracing::debug!(index = before.index, "a GPU is not counted any more");
                xids.lost(before.index);
                gpus.push(unseen(before, &GpuFault::Lost { why: "not counted any more".into() }));
            }
        }
        Ok(Inventory { driver: Some(Driver { version, cuda }), gpus, simulated: false })
    }

    /// The GPU, and its instances if it is cut into such.
    fn read_all(&self, index: u32, xids: &mut Xids) -> Result<Vec<Gpu>, NvmlError> {
        let device = self.library.device_by_index(index)?;
        let mut card = read(&device, index)?;
        xids.note(self.library, &device, &mut card);
        let mut all = vec![card.clone()];
        if card.mig == Mig::Cut {
            for at in 0..optional(device.mig_device_count())?.unwrap_or_default() {
                match device.mig_device_by_index(at) {
                    Ok(instance) => all.extend(read_instance(&instance, &card)?),
                    // Its places need not all be taken.
                    Err(NvmlError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(all)
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

fn unseen(before: &Gpu, fault: &GpuFault) -> Gpu {
    Gpu {
        processes: Some(Vec::new()),
        utilization: None,
        power: None,
        temperature: None,
        fault: Some(fault.clone()),
        ..before.clone()
    }
}

/// What a card does not support is no error: consumer cards know no ECC, no power, no MIG.
fn optional<T>(value: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error @ (NvmlError::GpuLost | NvmlError::Uninitialized)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// An instance; `None` for one of a kind that haul does not give out, such as a part of an instance.
fn read_instance(device: &Device<'_>, card: &Gpu) -> Result<Option<Gpu>, NvmlError> {
    // NVIDIA A100-SXM4-80GB MIG 1g.10gb
    let model = device.name()?;
    let Some(profile) = model.rsplit(' ').next().and_then(|name| name.parse().ok()) else {
        tracing::debug!(model, "an instance of a kind that is not given out");
        return Ok(None);
    };
    let memory = device.memory_info()?;
    Ok(Some(Gpu {
        uuid: GpuUuid::new(device.uuid()?).map_err(|_| NvmlError::Unknown)?,
        model,
        memory: Size(memory.total),
        memory_reserved: Size(memory.reserved),
        memory_used: Size(memory.used),
        processes: processes(device)?,
        utilization: None,
        power: None,
        energy: None,
        mig: Mig::Instance(profile),
        ..card.clone()
    }))
}

fn processes(device: &Device<'_>) -> Result<Option<Vec<GpuProcess>>, NvmlError> {
    let Some(compute) = optional(device.running_compute_processes())? else { return Ok(None) };
    let graphics = optional(device.running_graphics_processes())?.unwrap_or_default();
    let mut processes: Vec<GpuProcess> = compute.iter().chain(&graphics).map(process).collect();
    processes.sort_by_key(|process| process.pid);
    processes.dedup_by_key(|process| process.pid);
    Ok(Some(processes))
}

fn read(device: &Device<'_>, index: u32) -> Result<Gpu, NvmlError> {
    let memory = device.memory_info()?;
    let capability = device.cuda_compute_capability()?;
    let part = |n: i32| u32::try_from(n).unwrap_or_default();
    let uuid = GpuUuid::new(device.uuid()?).map_err(|_| NvmlError::Unknown)?;
    let temperature = optional(device.temperature(TemperatureSensor::Gpu))?;
    let is_cut = optional(device.mig_mode())?.is_some_and(|mode| mode.current == 1);
    Ok(Gpu {
        index,
        uuid,
        model: device.name()?,
        memory: Size(memory.total),
        memory_reserved: Size(memory.reserved),
        memory_used: Size(memory.used),
        compute_capability: Version2 { major: part(capability.major), minor: part(capability.minor) },
        device_node: optional(device.minor_number())?
            .map(|minor| PathBuf::from(format!("/dev/nvidia{minor}"))),
        pci_bus: optional(device.pci_info())?.map(|pci| pci.bus_id),
        processes: processes(device)?,
        utilization: optional(device.utilization_rates())?.map(|rates| rates.gpu),
        power: optional(device.power_usage())?.map(|milliwatts| f64::from(milliwatts) / 1000.0),
        energy: optional(device.total_energy_consumption())?.map(joules),
        temperature,
        mig: if is_cut { Mig::Cut } else { Mig::Off },
        fault: fault(device, temperature)?,
    })
}

fn fault(device: &Device<'_>, temperature: Option<u32>) -> Result<Option<GpuFault>, NvmlError> {
    let errors = optional(device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile))?;
    if let Some(errors) = errors.filter(|errors| *errors > 0) {
        return Ok(Some(GpuFault::UncorrectableEcc { errors }));
    }
    let slowdown = optional(device.current_throttle_reasons())?.and_then(slowdown);
    Ok(slowdown.map(|from| GpuFault::Slowed { from, temperature }))
}

fn slowdown(reasons: ThrottleReasons) -> Option<Slowdown> {
    // The general one is told beside the particular ones.
    let all = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Slowdown::Heat),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Slowdown::PowerBrake),
        (ThrottleReasons::HW_SLOWDOWN, Slowdown::Hardware),
    ];
    all.into_iter().find(|(reason, _)| reasons.contains(*reason)).map(|(_, slowdown)| slowdown)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 mJ are drawn in a thousand years")]
fn joules(millijoules: u64) -> f64 {
    millijoules as f64 / 1000.0
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
