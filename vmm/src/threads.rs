//! All threads of the VM beside the main one: the vCPUs', the network device's, and one for each disk.

use crate::{
    device_thread::{DeviceThread, DeviceThreadError},
    devices::{
        device_set::{DiskDevice, NetworkDevice},
        virtio::net::TapSlot,
    },
    exit_reason::ExitEvent,
    seccomp::Filter,
    vcpu::{ThreadError, VcpuThreads},
};
use std::sync::{Arc, PoisonError};
use vm_spec::control::Stats;

/// The network device, on a thread of its own.
pub struct NetworkThread {
    thread: DeviceThread,
    tap: TapSlot,
}

impl NetworkThread {
    /// Starts the thread, paused, under `filter`.
    ///
    /// # Errors
    /// As [`DeviceThread::start`].
    pub fn start(device: NetworkDevice, filter: Filter, exit_event: Arc<ExitEvent>) -> Result<Self, DeviceThreadError> {
        let NetworkDevice { tap, transport } = device;
        let thread = DeviceThread::start("network", filter, exit_event, move |events| {
            transport.lock().unwrap_or_else(PoisonError::into_inner).attach(events)
        })?;
        Ok(Self { thread, tap })
    }
}

/// Starts the thread of a disk, paused, under `filter`.
///
/// # Errors
/// As [`DeviceThread::start`].
pub fn start_disk(device: DiskDevice, filter: Filter, exit_event: Arc<ExitEvent>) -> Result<DeviceThread, DeviceThreadError> {
    let DiskDevice { name, transport } = device;
    DeviceThread::start(name, filter, exit_event, move |events| {
        transport.lock().unwrap_or_else(PoisonError::into_inner).attach(events)
    })
}

/// Threads that access the guest's memory.
pub struct Threads {
    vcpus: VcpuThreads,
    network: Option<NetworkThread>,
    disks: Vec<DeviceThread>,
}

impl Threads {
    /// Of a VM that is about to run; all of them are paused.
    pub fn new(vcpus: VcpuThreads, network: Option<NetworkThread>, disks: Vec<DeviceThread>) -> Self {
        Self { vcpus, network, disks }
    }

    /// Threads of devices.
    fn devices(&self) -> impl Iterator<Item = &DeviceThread> {
        self.network.iter().map(|network| &network.thread).chain(&self.disks)
    }

    /// Where the network device gets its TAP, if the VM has one.
    pub fn tap(&self) -> Option<&TapSlot> {
        self.network.as_ref().map(|network| &network.tap)
    }

    /// Lets devices and guest run.
    pub fn resume(&self) {
        self.devices().for_each(DeviceThread::resume);
        self.vcpus.resume();
    }

    /// Returns when no vCPU is in the guest, none of its exits is being served, and no thread serves a device; what a disk waits for from the
    /// host's storage is not waited for. If one does not stop, all are resumed.
    ///
    /// # Errors
    /// When one does not stop in time.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.vcpus.pause()?;
        let paused = self.devices().try_for_each(DeviceThread::pause);
        Ok(paused.inspect_err(|_| self.resume())?)
    }

    /// Ends all threads, and joins those that end.
    ///
    /// # Errors
    /// When one does not stop in time.
    pub fn stop(&self) -> Result<(), ThreadError> {
        let stopped = self.vcpus.stop();
        self.devices().try_for_each(DeviceThread::stop)?;
        stopped
    }

    /// Counters of the vCPUs since the start.
    ///
    /// # Errors
    /// When KVM's cannot be read.
    pub fn stats(&self) -> Result<Stats, ThreadError> {
        self.vcpus.stats()
    }
}
