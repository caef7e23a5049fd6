//! Asks the VMM for a simulated report, over vsock ([`attestation::simulated`]). What it answers is as hostile as anything of the host.

use std::{
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use attestation::{
    Report, ReportError,
    simulated::{ANSWER_HEADER_BYTES, LongTable, REPORT_PORT, parse_header},
};
use vsock::{VMADDR_CID_HOST, VsockStream};

use super::Attested;

/// The VMM answers within this time. It signs in milliseconds; a busy host may take longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    #[error("the VMM does not serve reports on port {REPORT_PORT}")]
    Connect(#[source] io::Error),
    #[error("the VMM does not answer")]
    Io(#[from] io::Error),
    #[error("the VMM's answer cannot be used")]
    Long(#[from] LongTable),
    #[error("the VMM's report is damaged")]
    Report(#[from] ReportError),
}

/// The stream to the VMM. It is kept, because the VMM has only a few for the life of a guest.
#[derive(Default)]
pub struct Reports(Mutex<Option<VsockStream>>);

impl Reports {
    /// A report with this REPORT_DATA. Blocks; requests are made one after the other.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<Attested, SimulatedError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match kept.take() {
            Some(stream) => stream,
            None => connect().map_err(SimulatedError::Connect)?,
        };
        let attested = ask(&stream, report_data)?;
        // Only a stream on which every answer was read whole can be asked again.
        *kept = Some(stream);
        Ok(attested)
    }
}

fn connect() -> io::Result<VsockStream> {
    let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, REPORT_PORT)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn ask<S>(mut stream: &S, report_data: &[u8; 64]) -> Result<Attested, SimulatedError>
where
    for<'a> &'a S: Read + Write,
{
    stream.write_all(report_data)?;
    let mut header = [0; ANSWER_HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let (report, length) = parse_header(&header)?;
    let mut certificates = vec![0; length];
    stream.read_exact(&mut certificates)?;
    Ok(Attested {
        report: Report::parse(&report)?,
        certificates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::{REPORT_BYTES, simulated::answer};
    use std::{net::Shutdown, os::unix::net::UnixStream, thread};

    fn answered(bytes: &[u8]) -> Result<Attested, SimulatedError> {
        let (own, vmm) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let vmm = thread::spawn(move || {
            let mut request = [0; 64];
            (&vmm).read_exact(&mut request).unwrap();
            (&vmm).write_all(&bytes).unwrap();
            vmm.shutdown(Shutdown::Write).unwrap();
            request
        });
        let result = ask(&own, &[7; 64]);
        assert_eq!(vmm.join().unwrap(), [7; 64]);
        result
    }

    #[test]
    fn an_answer_is_read_whole_or_refused() {
        let mut report = [0; REPORT_BYTES];
        report[0] = 5;
        report[0x50..0x90].fill(7);
        let whole = answer(&report, b"certificates").unwrap();
        let attested = answered(&whole).unwrap();
        assert_eq!(
            (attested.report.report_data(), &attested.certificates[..]),
            ([7; 64], &b"certificates"[..])
        );
        for length in [0, 1, REPORT_BYTES, whole.len() - 1] {
            assert!(matches!(answered(&whole[..length]), Err(SimulatedError::Io(_))), "{length}");
        }
        assert!(matches!(
            answered(&[&report[..], &[0xff; 4]].concat()),
            Err(SimulatedError::Long(_))
        ));
        report[0] = 6;
        assert!(matches!(answered(&answer(&report, b"").unwrap()), Err(SimulatedError::Report(_))));
    }
}
