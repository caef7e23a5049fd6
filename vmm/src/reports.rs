//! Simulated attestation reports: a stand-in for the secure processor, on a vsock port of the host.
//!
//! The guest is measured and its reports are signed as firmware would, with a key of this host instead of a chip's. Requests come from
//! the guest: each stream has one request at a time, and a guest that reads no answers is not answered any more.

use crate::{
    devices::virtio::vsock::muxer::Offer,
    event_loop::{EventLoop, EventSet, Token},
};
use attestation::simulated::{LongTable, MAX_TABLE_BYTES, REPORT_PORT, REQUEST_BYTES, answer};
use launch_measure::LaunchDigest;
use simulated_tee::{EndorsementKey, Guest, NotAKey, Reporter};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    rc::Rc,
};
use vm_spec::{HostData, VmSpec};

/// Streams that a guest may open in its life. Its agent needs one, and another after each time that the VMM did not answer in time.
const STREAMS: usize = 32;
/// SMT is allowed; bit 17 is always set (SNP firmware ABI, 4.3). No debugging, no migration.
const GUEST_POLICY: u64 = 0x3_0000;

/// Why there are no simulated reports.
#[derive(Debug, thiserror::Error)]
pub enum ReportsError {
    /// The spec's key is not one.
    #[error("`reports.key` is no endorsement key")]
    Key(#[from] NotAKey),
    /// Not hexadecimal; without its cause, which quotes the key.
    #[error("`reports.key` is not hexadecimal")]
    Hex,
    /// Neither 2, 3, 4 nor 5.
    #[error("`reports.version` is {0}; 2 to 5 are known")]
    Version(u32),
    /// The file of certificates cannot be used.
    #[error("`reports.certificates` cannot be read")]
    Read(#[source] io::Error),
    /// More certificates than a guest takes.
    #[error("`reports.certificates`")]
    Long(#[from] LongTable),
    /// The sockets.
    #[error("cannot serve reports")]
    Sockets(#[source] io::Error),
}

/// Signs reports of a guest that is not measured yet.
pub struct Signer {
    key: EndorsementKey,
    version: u32,
    table: Vec<u8>,
    /// The other ends of the offered streams.
    streams: Vec<UnixStream>,
}

/// A port for the guest, and who serves it; `None` for a guest without simulated reports.
pub fn open(spec: &VmSpec, certificates: Option<File>) -> Result<Option<(Offer, Signer)>, ReportsError> {
    let (Some(reports), Some(file)) = (&spec.reports, certificates) else {
        return Ok(None);
    };
    let key = EndorsementKey::try_from(&hex::decode(&reports.key).map_err(|_| ReportsError::Hex)?[..])?;
    if !(2..=5).contains(&reports.version) {
        return Err(ReportsError::Version(reports.version));
    }
    let mut table = Vec::new();
    file.take(MAX_TABLE_BYTES as u64 + 1)
        .read_to_end(&mut table)
        .map_err(ReportsError::Read)?;
    if table.len() > MAX_TABLE_BYTES {
        return Err(LongTable(table.len()).into());
    }
    let (offered, streams) = (0..STREAMS)
        .map(|_| pair())
        .collect::<io::Result<(Vec<_>, Vec<_>)>>()
        .map_err(ReportsError::Sockets)?;
    let offer = Offer {
        port: REPORT_PORT,
        streams: offered,
    };
    let version = reports.version;
    let signer = Signer {
        key,
        version,
        table,
        streams,
    };
    Ok(Some((offer, signer)))
}

fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (guest, own) = UnixStream::pair()?;
    guest.set_nonblocking(true)?;
    own.set_nonblocking(true)?;
    Ok((guest, own))
}

impl Signer {
    /// Answers on every stream.
    ///
    /// # Errors
    /// When the loop takes no more descriptors.
    pub fn serve(self, events: &mut EventLoop, measurement: LaunchDigest, host_data: HostData) -> Result<(), ReportsError> {
        let guest = Guest {
            measurement: measurement.0,
            host_data: host_data.0,
            policy: GUEST_POLICY,
        };
        let reporter = Reporter::new(self.key, guest).with_version(self.version);
        let (reporter, table) = (Rc::new(reporter), Rc::new(self.table));
        for stream in self.streams {
            let fd = stream.as_raw_fd();
            let mut served = Served {
                stream,
                request: [0; REQUEST_BYTES],
                received: 0,
            };
            let (reporter, table) = (reporter.clone(), table.clone());
            let serve = move |events: &mut EventLoop, own: Token, _: EventSet| {
                if served.progress(&reporter, &table).is_err() {
                    events.remove(own);
                }
            };
            events.add(fd, EventSet::IN, Box::new(serve)).map_err(ReportsError::Sockets)?;
        }
        Ok(())
    }
}

/// A stream of the guest.
struct Served {
    stream: UnixStream,
    request: [u8; REQUEST_BYTES],
    received: usize,
}

impl Served {
    /// Reads more of a request, and answers it once it is whole. An error ends the stream.
    fn progress(&mut self, reporter: &Reporter, table: &[u8]) -> io::Result<()> {
        match self.stream.read(&mut self.request[self.received..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.received += count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error),
        }
        if self.received < REQUEST_BYTES {
            return Ok(());
        }
        self.received = 0;
        let answer = answer(&reporter.report(&self.request), table).map_err(io::Error::other)?;
        // The socket has room for the answer unless the guest leaves earlier ones in it.
        match self.stream.write(&answer)? {
            count if count == answer.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attestation::{
        Report,
        simulated::{ANSWER_HEADER_BYTES, parse_header},
    };

    const GUEST: Guest = Guest {
        measurement: [1; 48],
        host_data: [2; 32],
        policy: GUEST_POLICY,
    };

    fn served() -> (UnixStream, Served, Reporter) {
        let (guest, stream) = pair().unwrap();
        let key = EndorsementKey::try_from(&[1; 48][..]).unwrap();
        let served = Served {
            stream,
            request: [0; REQUEST_BYTES],
            received: 0,
        };
        (guest, served, Reporter::new(key, GUEST))
    }

    #[test]
    fn a_request_is_answered_once_it_is_whole() {
        let (mut guest, mut served, reporter) = served();
        let mut header = [0; ANSWER_HEADER_BYTES];
        for part in [&[7; 60][..], &[7; 4]] {
            assert!(guest.read(&mut header).is_err());
            guest.write_all(part).unwrap();
            served.progress(&reporter, b"table").unwrap();
        }
        guest.read_exact(&mut header).unwrap();
        let (report, length) = parse_header(&header).unwrap();
        let report = Report::parse(&report).unwrap();
        assert_eq!(
            (report.report_data(), report.measurement(), report.host_data()),
            ([7; 64], [1; 48], [2; 32])
        );
        let mut table = [0; 5];
        guest.read_exact(&mut table).unwrap();
        assert_eq!((&table, length), (b"table", 5));
        drop(guest);
        assert!(served.progress(&reporter, b"table").is_err());
    }

    #[test]
    fn a_guest_that_reads_no_answer_is_answered_no_more() {
        let (mut guest, mut served, reporter) = served();
        let mut requests = 0;
        while guest.write_all(&[7; REQUEST_BYTES]).is_ok() && served.progress(&reporter, &[0; MAX_TABLE_BYTES]).is_ok() {
            requests += 1;
            assert!(requests < 1000, "the socket has no end");
        }
    }
}
