//! A stand-in for `libnvidia-ml.so.1`, so that the shipped NVML code is tested without a GPU.
//!
//! GPUs come from the TOML file that `FAKE_NVML_FILE` names (`/etc/gpus.toml` without), read afresh at each call, so that a
//! test can take a GPU away, raise an ECC error or show a foreign process while the program runs:
//!
//! ```toml
//! driver = "535.104.05"
//! cuda = 12040
//! hang = false
//! [[gpus]]
//! uuid = "GPU-…"
//! name = "Tesla P100-PCIE-16GB"
//! memory_mib = 16384
//! cc = [6, 0]
//! processes = [{ pid = 7, memory_mib = 100 }]
//! mig = true
//! instances = [{ uuid = "MIG-…", profile = "1g.10gb", memory_mib = 9728 }]
//! ```
//!
//! Only what haul calls is here; every other symbol is missing, as in an old driver. Structures
//! are those of `nvml.h` (NVML API Reference Guide).
#![expect(unsafe_code, reason = "it speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, clippy::not_unsafe_ptr_arg_deref)]

use std::{ffi::c_char, time::Duration};

use serde::Deserialize;

/// Where the file is on a host that has this in place of the driver's library.
const PLACE: &str = "/etc/gpus.toml";

const SUCCESS: u32 = 0;
const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const TIMEOUT: u32 = 10;
const INSUFFICIENT_SIZE: u32 = 7;
const GPU_IS_LOST: u32 = 15;
const UNKNOWN: u32 = 999;

#[derive(Deserialize)]
struct Host {
    #[serde(default = "driver")]
    driver: String,
    #[serde(default = "cuda")]
    cuda: i32,
    #[serde(default)]
    hang: bool,
    #[serde(default)]
    gpus: Vec<Gpu>,
}

#[derive(Clone, Deserialize)]
struct Gpu {
    uuid: String,
    name: String,
    memory_mib: u64,
    #[serde(default)]
    used_kib: u64,
    #[serde(default)]
    reserved_kib: u64,
    cc: [i32; 2],
    #[serde(default)]
    minor: u32,
    #[serde(default)]
    processes: Vec<Process>,
    utilization: Option<u32>,
    power_mw: Option<u32>,
    energy_mj: Option<u64>,
    temperature: Option<u32>,
    ecc: Option<u64>,
    #[serde(default)]
    throttled: u64,
    /// What it has reported, the oldest first.
    #[serde(default)]
    xids: Vec<u64>,
    mig: Option<bool>,
    #[serde(default)]
    instances: Vec<Instance>,
    #[serde(default)]
    lost: bool,
}

#[derive(Clone, Deserialize)]
struct Instance {
    uuid: String,
    profile: String,
    memory_mib: u64,
    #[serde(default)]
    processes: Vec<Process>,
}

#[derive(Clone, Deserialize)]
struct Process {
    pid: u32,
    memory_mib: u64,
}

fn driver() -> String {
    "535.104.05".into()
}

fn cuda() -> i32 {
    12_040
}

/// The host as the file has it now; waits while it hangs.
fn host() -> Option<Host> {
    let path = std::env::var_os("FAKE_NVML_FILE").unwrap_or_else(|| PLACE.into());
    loop {
        let host: Host = toml::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
        if !host.hang {
            return Some(host);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Handles of instances have their index and one above this bit.
const INSTANCE: u32 = 16;

/// A handle is an index and one, so that none is null.
fn with(handle: usize, give: impl FnOnce(&Gpu) -> u32) -> u32 {
    let Some(host) = host() else { return UNKNOWN };
    let (card, instance) = (handle & ((1 << INSTANCE) - 1), handle >> INSTANCE);
    match (host.gpus.get(card.wrapping_sub(1)), instance) {
        (Some(gpu), _) if gpu.lost => GPU_IS_LOST,
        (Some(gpu), 0) => give(gpu),
        (Some(gpu), instance) => gpu.instances.get(instance - 1).map_or(INVALID_ARGUMENT, |instance| {
            give(&Gpu {
                uuid: instance.uuid.clone(),
                name: format!("{} MIG {}", gpu.name, instance.profile),
                memory_mib: instance.memory_mib,
                used_kib: 0,
                processes: instance.processes.clone(),
                utilization: None,
                power_mw: None,
                energy_mj: None,
                ..gpu.clone()
            })
        }),
        (None, _) => INVALID_ARGUMENT,
    }
}

fn give<T>(to: *mut T, value: Option<T>) -> u32 {
    let Some(value) = value else { return NOT_SUPPORTED };
    // SAFETY: the caller passes a place for one value, as nvml.h asks.
    unsafe { to.write(value) };
    SUCCESS
}

fn text(to: *mut c_char, length: u32, value: &str) -> u32 {
    if value.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the caller passes a buffer of `length`, and the text with its end is not longer.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr().cast(), to, value.len());
        to.add(value.len()).write(0);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    if host().is_some() { SUCCESS } else { UNKNOWN }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_: u32) -> u32 {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(to: *mut c_char, length: u32) -> u32 {
    host().map_or(UNKNOWN, |host| text(to, length, &host.driver))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion_v2(to: *mut i32) -> u32 {
    host().map_or(UNKNOWN, |host| give(to, Some(host.cuda)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(to: *mut u32) -> u32 {
    host().map_or(UNKNOWN, |host| give(to, u32::try_from(host.gpus.len()).ok()))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, to: *mut usize) -> u32 {
    with(index as usize + 1, |_| give(to, Some(index as usize + 1)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUUID(gpu: usize, to: *mut c_char, length: u32) -> u32 {
    with(gpu, |gpu| text(to, length, &gpu.uuid))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetName(gpu: usize, to: *mut c_char, length: u32) -> u32 {
    with(gpu, |gpu| text(to, length, &gpu.name))
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct Memory {
    version: u32,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(gpu: usize, to: *mut Memory) -> u32 {
    with(gpu, |gpu| {
        let (total, used, reserved) = (gpu.memory_mib << 20, gpu.used_kib << 10, gpu.reserved_kib << 10);
        // SAFETY: the caller passes a structure whose version it has filled in.
        let version = unsafe { (*to).version };
        give(to, Some(Memory { version, total, reserved, free: total - used - reserved, used }))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCudaComputeCapability(gpu: usize, major: *mut i32, minor: *mut i32) -> u32 {
    with(gpu, |gpu| give(major, Some(gpu.cc[0])).max(give(minor, Some(gpu.cc[1]))))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMinorNumber(gpu: usize, to: *mut u32) -> u32 {
    with(gpu, |gpu| give(to, Some(gpu.minor)))
}

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
pub struct ProcessInfo {
    pid: u32,
    used: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    gpu: usize,
    count: *mut u32,
    to: *mut ProcessInfo,
) -> u32 {
    with(gpu, |gpu| {
        let wanted = gpu.processes.len();
        // SAFETY: the caller passes the length of its array, and a null array only to be told the
        // length that it needs.
        unsafe {
            let room = *count as usize;
            *count = u32::try_from(wanted).unwrap_or(u32::MAX);
            if room < wanted {
                return INSUFFICIENT_SIZE;
            }
            for (i, process) in gpu.processes.iter().enumerate() {
                let (gpu_instance, compute_instance) = (u32::MAX, u32::MAX);
                let used = process.memory_mib << 20;
                to.add(i).write(ProcessInfo { pid: process.pid, used, gpu_instance, compute_instance });
            }
        }
        SUCCESS
    })
}

/// `nvmlUtilization_t`.
#[repr(C)]
pub struct Utilization {
    gpu: u32,
    memory: u32,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetUtilizationRates(gpu: usize, to: *mut Utilization) -> u32 {
    with(gpu, |gpu| give(to, gpu.utilization.map(|gpu| Utilization { gpu, memory: 0 })))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPowerUsage(gpu: usize, to: *mut u32) -> u32 {
    with(gpu, |gpu| give(to, gpu.power_mw))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEnergyConsumption(gpu: usize, to: *mut u64) -> u32 {
    with(gpu, |gpu| give(to, gpu.energy_mj))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTemperature(gpu: usize, _: u32, to: *mut u32) -> u32 {
    with(gpu, |gpu| give(to, gpu.temperature))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(gpu: usize, current: *mut u32, pending: *mut u32) -> u32 {
    with(gpu, |gpu| give(current, gpu.mig.map(u32::from)).max(give(pending, gpu.mig.map(u32::from))))
}

/// More places than there are instances, as on real cards.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMaxMigDeviceCount(gpu: usize, to: *mut u32) -> u32 {
    with(gpu, |_| give(to, Some(7)))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(gpu: usize, index: u32, to: *mut usize) -> u32 {
    let handle = gpu | (index as usize + 1) << INSTANCE;
    with(gpu, |card| if card.instances.len() > index as usize { give(to, Some(handle)) } else { NOT_FOUND })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetTotalEccErrors(gpu: usize, _: u32, _: u32, to: *mut u64) -> u32 {
    with(gpu, |gpu| give(to, gpu.ecc))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(gpu: usize, to: *mut u64) -> u32 {
    with(gpu, |gpu| give(to, Some(gpu.throttled)))
}

/// A set of events: of one GPU, and how many of its reports have been given.
pub struct EventSet {
    gpu: usize,
    given: usize,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(to: *mut *mut EventSet) -> u32 {
    give(to, Some(Box::into_raw(Box::new(EventSet { gpu: 0, given: 0 }))))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(gpu: usize, _: u64, set: *mut EventSet) -> u32 {
    with(gpu, |card| {
        // SAFETY: the caller passes a set that it was given and has not freed.
        unsafe { (*set).gpu = gpu };
        // What was reported before is not told.
        unsafe { (*set).given = card.xids.len() };
        SUCCESS
    })
}

/// `nvmlEventData_t`.
#[repr(C)]
pub struct EventData {
    gpu: usize,
    event: u64,
    data: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(set: *mut EventSet, to: *mut EventData, _: u32) -> u32 {
    // SAFETY: as above, and no other thread uses the set.
    let set = unsafe { &mut *set };
    with(set.gpu, |gpu| {
        let Some(xid) = gpu.xids.get(set.given) else { return TIMEOUT };
        set.given += 1;
        let (gpu_instance, compute_instance) = (u32::MAX, u32::MAX);
        // 8 is nvmlEventTypeXidCriticalError.
        give(to, Some(EventData { gpu: set.gpu, event: 8, data: *xid, gpu_instance, compute_instance }))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: *mut EventSet) -> u32 {
    // SAFETY: as above; it is not used any more.
    drop(unsafe { Box::from_raw(set) });
    SUCCESS
}
