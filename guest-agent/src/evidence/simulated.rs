//! Asks the VMM for a simulated report, over vsock ([`attestation::simulated`]). What it answers is as hostile as anything of the host.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use attestation::{
    Report, ReportError,
    simulated::{ANSWER_HEADER_BYTES, LongTable, REPORT_PORT, parse_header},
};
use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, setsockopt, socket, sockopt},
    time::TimeVal,
};
use vsock::VMADDR_CID_HOST;

use super::Attested;
use crate::sys;

/// The VMM accepts a stream, and answers a request, within this time. It signs in milliseconds; a busy host may take longer.
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
pub struct Reports(Mutex<Option<Stream>>);

impl Reports {
    /// A report with this REPORT_DATA. Blocks; requests are made one after the other.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<Attested, SimulatedError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match kept.take() {
            Some(stream) => stream,
            None => Stream::connect().map_err(SimulatedError::Connect)?,
        };
        let attested = ask(&stream, report_data, DEADLINE)?;
        // Only a stream on which every answer was read whole can be asked again.
        *kept = Some(stream);
        Ok(attested)
    }
}

/// A stream whose every operation ends in time.
struct Stream(File);

impl Stream {
    fn connect() -> io::Result<Self> {
        let stream = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // A request that was given up would still use up one of the VMM's streams, once it goes on.
        sys::set_vsock_connect_timeout(&stream, DEADLINE)?;
        connect(stream.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, REPORT_PORT))?;
        setsockopt(&stream, sockopt::SendTimeout, &timeout(DEADLINE))?;
        Ok(Self(OwnedFd::into(stream)))
    }
}

fn timeout(time: Duration) -> TimeVal {
    // 0 would be no limit.
    TimeVal::new(time.as_secs() as i64, i64::from(time.subsec_micros().max(1)))
}

/// What can be read until a deadline.
trait Timed {
    fn set_read_timeout(&self, time: Duration) -> io::Result<()>;
}

impl Timed for Stream {
    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        Ok(setsockopt(&self.0, sockopt::ReceiveTimeout, &timeout(time))?)
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(bytes)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As `read_exact`, but all of it by `end`: otherwise a byte now and then would be enough to hold the agent.
fn read_all<S>(mut stream: &S, mut bytes: &mut [u8], end: Instant) -> io::Result<()>
where
    S: Timed,
    for<'a> &'a S: Read,
{
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(left)?;
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn ask<S>(mut stream: &S, report_data: &[u8; 64], deadline: Duration) -> Result<Attested, SimulatedError>
where
    S: Timed,
    for<'a> &'a S: Read + Write,
{
    let end = Instant::now() + deadline;
    stream.write_all(report_data)?;
    let mut header = [0; ANSWER_HEADER_BYTES];
    read_all(stream, &mut header, end)?;
    let (report, length) = parse_header(&header)?;
    let mut certificates = vec![0; length];
    read_all(stream, &mut certificates, end)?;
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

    impl Timed for UnixStream {
        fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
            Self::set_read_timeout(self, Some(time))
        }
    }

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
        let result = ask(&own, &[7; 64], DEADLINE);
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

    #[test]
    fn a_vmm_that_sends_a_byte_now_and_then_is_given_up() {
        let (own, vmm) = UnixStream::pair().unwrap();
        let sender = thread::spawn(move || {
            while (&vmm).write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert!(matches!(
            ask(&own, &[7; 64], Duration::from_millis(100)),
            Err(SimulatedError::Io(_))
        ));
        drop(own);
        sender.join().unwrap();
    }
}
