//! All threads of the VM beside the main one: the vCPUs' and the network device's.

use crate::{
    device_thread::{DeviceThread, DeviceThreadError},
    devices::{device_set::NetworkDevice, virtio::net::TapSlot},
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

/// Threads that access the guest's memory.
pub struct Threads {
    vcpus: VcpuThreads,
    network: Option<NetworkThread>,
}

impl Threads {
    /// Of a VM that is about to run; all of them are paused.
    pub fn new(vcpus: VcpuThreads, network: Option<NetworkThread>) -> Self {
        Self { vcpus, network }
    }

    /// Where the network device gets its TAP, if the VM has one.
    pub fn tap(&self) -> Option<&TapSlot> {
        self.network.as_ref().map(|network| &network.tap)
    }

    /// Lets devices and guest run.
    pub fn resume(&self) {
        if let Some(network) = &self.network {
            network.thread.resume();
        }
        self.vcpus.resume();
    }

    /// Returns when no vCPU is in the guest, none of its exits is being served, and no thread serves a device. If one does not stop,
    /// all are resumed.
    ///
    /// # Errors
    /// When one does not stop in time.
    pub fn pause(&self) -> Result<(), ThreadError> {
        self.vcpus.pause()?;
        if let Some(network) = &self.network {
            network.thread.pause().inspect_err(|_| self.vcpus.resume())?;
        }
        Ok(())
    }

    /// Ends and joins all threads.
    ///
    /// # Errors
    /// When one does not stop in time.
    pub fn stop(&self) -> Result<(), ThreadError> {
        let stopped = self.vcpus.stop();
        if let Some(network) = &self.network {
            network.thread.stop()?;
        }
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
