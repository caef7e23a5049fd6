//! File descriptors that are known by number: inherited ones that the spec names ([`Inherited`]), and those of `SCM_RIGHTS` messages.
#![expect(unsafe_code, reason = "a number becomes an owned descriptor")]

use nix::sys::socket::{SockFlag, accept4};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
};
use vm_spec::{Boot, Fd, Payload, VmSpec};

pub use confine::descriptors::{DescriptorError, Inherited};

/// All files of a spec.
#[derive(Debug)]
pub struct Files {
    /// For boot.
    pub boot: BootFiles,
    /// Output of the serial console.
    pub console: Option<File>,
    /// For devices.
    pub devices: DeviceFiles,
    /// The table of certificates that goes with simulated reports.
    pub certificates: Option<File>,
    /// For the launch of an SNP guest.
    pub snp: SnpFiles,
    /// The control socket.
    pub control: OwnedFd,
}

/// Files of `snp`.
#[derive(Debug, Default)]
pub struct SnpFiles {
    /// ID block and its signatures.
    pub id: Option<(File, File)>,
    /// The table of certificates.
    pub certificates: Option<File>,
}

/// Files of `boot`.
#[derive(Debug)]
pub struct BootFiles {
    /// stage0, in a guest that it starts.
    pub stage0: Option<File>,
    /// ELF kernel.
    pub kernel: File,
    /// Initramfs.
    pub initrd: Option<File>,
}

/// Files of devices; absent if the spec has no such device.
#[derive(Debug)]
pub struct DeviceFiles {
    /// The scratch disk.
    pub scratch: Option<File>,
    /// The disk with the configuration of registries.
    pub registries: Option<File>,
    /// The host side of the vsock device.
    pub vsock: Option<UnixListener>,
}

impl Files {
    /// Takes all files that `spec` names.
    pub fn take(spec: &VmSpec, inherited: &mut Inherited) -> Result<Self, DescriptorError> {
        let mut optional = |field, fd: Option<Fd>| fd.map(|Fd(number)| inherited.take(field, number)).transpose();
        let stage0 = match &spec.boot {
            Boot::Direct(_) => None,
            Boot::Verified(verified) => Some(verified.stage0),
        };
        let Payload { kernel, initrd, .. } = spec.boot.payload();
        let stage0 = optional("boot.stage0", stage0)?.map(File::from);
        let initrd = optional("boot.initrd", *initrd)?.map(File::from);
        let console = optional("console", spec.console)?.map(File::from);
        let scratch = optional("scratch.file", spec.scratch.as_ref().map(|s| s.file))?.map(File::from);
        let registries = optional("registries", spec.registries)?.map(File::from);
        let vsock = optional("vsock.listener", spec.vsock.as_ref().map(|v| v.listener))?.map(UnixListener::from);
        let certificates = optional("reports.certificates", spec.reports.as_ref().map(|r| r.certificates))?.map(File::from);
        let given = spec.snp.unwrap_or_default();
        let of_snp = optional("snp.certificates", given.certificates)?.map(File::from);
        let mut required = |field, Fd(number): Fd| inherited.take(field, number).map(File::from);
        let id = given.id.map(|id| {
            let block = required("snp.id.block", id.block)?;
            Ok((block, required("snp.id.authentication", id.authentication)?))
        });
        let id = id.transpose()?;
        let kernel = required("boot.kernel", *kernel)?;
        Ok(Self {
            boot: BootFiles { stage0, kernel, initrd },
            console,
            devices: DeviceFiles {
                scratch,
                registries,
                vsock,
            },
            certificates,
            snp: SnpFiles { id, certificates: of_snp },
            control: inherited.take("control", spec.control.0)?,
        })
    }
}

/// Accepts a client of a listening socket, in non-blocking mode.
pub fn accept(listener: &impl AsRawFd) -> io::Result<OwnedFd> {
    let client = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just returned this new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(client) })
}

/// Takes ownership of the descriptors of a received `SCM_RIGHTS` message; each must be passed once.
pub fn received(numbers: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just installed these for the receiver, which passes each to this function once.
    numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
