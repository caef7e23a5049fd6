//! Asks for an SNP attestation report through `/dev/sev-guest` (`include/uapi/linux/sev-guest.h`).
//!
//! The kernel gets the report from the security processor over a channel that the hypervisor cannot read or change.

#![expect(unsafe_code, reason = "the ioctl of /dev/sev-guest has no wrapper")]

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
};

use attestation::{Report, ReportError};
use nix::{errno::Errno, libc};

const DEVICE: &str = "/dev/sev-guest";
/// Bytes of `struct snp_report_resp`.
const RESPONSE_BYTES: usize = 4000;
/// Status, size and reserved bytes before the report in MSG_REPORT_RSP (SNP ABI, table 25).
const RESPONSE_HEADER_BYTES: usize = 32;
/// Version of the guest message.
const MESSAGE_VERSION: u8 = 1;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SevGuestError {
    #[error("the security processor cannot be asked")]
    Device(#[source] io::Error),
    #[error("the security processor refuses with status {0:#x}")]
    Status(u32),
    #[error("the answer of the security processor holds no report")]
    Short,
    #[error("the report is damaged")]
    Report(#[from] ReportError),
}

/// `struct snp_report_req`
#[repr(C)]
struct Request {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}

/// `struct snp_guest_request_ioctl`
#[repr(C)]
struct GuestRequest {
    version: u8,
    request: u64,
    response: u64,
    error: u64,
}

/// A report with this REPORT_DATA.
pub fn report(report_data: &[u8; 64]) -> Result<Report, SevGuestError> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(SevGuestError::Device)?;
    report_in(&get_report(&device, *report_data).map_err(SevGuestError::Device)?)
}

fn get_report(device: &File, user_data: [u8; 64]) -> io::Result<Vec<u8>> {
    let request = Request {
        user_data,
        vmpl: 0,
        reserved: [0; 28],
    };
    let mut response = vec![0u8; RESPONSE_BYTES];
    let mut order = GuestRequest {
        version: MESSAGE_VERSION,
        request: std::ptr::from_ref(&request) as u64,
        response: response.as_mut_ptr() as u64,
        error: 0,
    };
    let number = nix::request_code_readwrite!(b'S', 0, size_of::<GuestRequest>());
    // SAFETY: the three structures have the kernel's layout and live for the call; the kernel reads one request
    // and writes at most RESPONSE_BYTES, the size of its own structure, to the response.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), number, &mut order) })?;
    Ok(response)
}

fn report_in(response: &[u8]) -> Result<Report, SevGuestError> {
    let status = response.first_chunk().map(|b| u32::from_le_bytes(*b)).ok_or(SevGuestError::Short)?;
    if status != 0 {
        return Err(SevGuestError::Status(status));
    }
    let size = response
        .get(4..8)
        .and_then(|b| b.first_chunk())
        .map(|b| u32::from_le_bytes(*b))
        .ok_or(SevGuestError::Short)?;
    let bytes = response
        .get(RESPONSE_HEADER_BYTES..)
        .and_then(|rest| rest.get(..size as usize))
        .ok_or(SevGuestError::Short)?;
    Ok(Report::parse(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Request>(), size_of::<GuestRequest>()), (96, 32));
    }

    #[test]
    fn an_answer_without_report_is_refused() {
        let mut response = vec![0; RESPONSE_BYTES];
        assert!(matches!(report_in(&response), Err(SevGuestError::Report(_))), "size 0");
        response[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(report_in(&response), Err(SevGuestError::Short)));
        response[0] = 0x16;
        assert!(matches!(report_in(&response), Err(SevGuestError::Status(0x16))));
        assert!(matches!(
            report_in(&response[..6]),
            Err(SevGuestError::Status(_) | SevGuestError::Short)
        ));
        assert!(matches!(report_in(&[]), Err(SevGuestError::Short)));
    }
}
