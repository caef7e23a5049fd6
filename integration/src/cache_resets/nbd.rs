//! A server of the Network Block Device protocol for one client, QEMU, and one [`Disk`] (NBD `doc/proto.md`: "fixed newstyle
//! negotiation", `NBD_OPT_GO`, simple replies).
//!
//! It ends some writes later than others, as disks do: a flush covers only those that have ended (`NBD_CMD_FLUSH`).

use super::disk::Disk;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943; // "NBDMAGIC"
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // "IHAVEOPT"
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`.
const HANDSHAKE_FLAGS: u16 = 1 | 1 << 1;
/// `NBD_FLAG_HAS_FLAGS`, `NBD_FLAG_SEND_FLUSH`: a client without FUA flushes instead.
const TRANSMISSION_FLAGS: u16 = 1 | 1 << 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 1 << 31 | 1;
const INFO_EXPORT: u16 = 0;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const EINVAL: u32 = 22;

/// Longest option and longest request in bytes.
const OPTION_MAX: u32 = 4096;
const REQUEST_MAX: u32 = 32 << 20;
/// One in so many writes ends late.
const LATE: u32 = 6;
/// After so many further requests at most.
const LATER: u32 = 40;
/// A client that asks for nothing meanwhile waits for one of them.
const IDLE_MS: u16 = 3;

/// A write that has not ended.
struct Held {
    cookie: u64,
    offset: u64,
    bytes: Vec<u8>,
    requests: u32,
}

/// Serves until the client goes. What it has written and not been told to have ended may be on the disk or not.
///
/// # Errors
/// When the client does not speak the protocol.
pub fn serve(stream: &UnixStream, disk: &mut Disk, random: &mut fastrand::Rng) -> io::Result<()> {
    let mut server = Server {
        input: BufReader::new(stream),
        output: stream,
        disk,
        random,
        held: Vec::new(),
    };
    match server.negotiate().and_then(|()| server.transmit()) {
        // As after any kill.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

struct Server<'a> {
    input: BufReader<&'a UnixStream>,
    output: &'a UnixStream,
    disk: &'a mut Disk,
    random: &'a mut fastrand::Rng,
    held: Vec<Held>,
}

impl Server<'_> {
    fn negotiate(&mut self) -> io::Result<()> {
        let greeting = [
            &SERVER_MAGIC.to_be_bytes()[..],
            &OPTION_MAGIC.to_be_bytes(),
            &HANDSHAKE_FLAGS.to_be_bytes(),
        ];
        self.output.write_all(&greeting.concat())?;
        let _client_flags = u32::from_be_bytes(self.bytes()?);
        loop {
            expect(u64::from_be_bytes(self.bytes()?) == OPTION_MAGIC, "no option")?;
            let option = u32::from_be_bytes(self.bytes()?);
            let length = u32::from_be_bytes(self.bytes()?);
            expect(length <= OPTION_MAX, "a long option")?;
            // The export's name and what the client asks about it: there is one export.
            self.data(length)?;
            if option != OPT_GO {
                self.answer_option(option, REP_ERR_UNSUP, &[])?;
                continue;
            }
            let size = self.disk.bytes().to_be_bytes();
            let export = [&INFO_EXPORT.to_be_bytes()[..], &size, &TRANSMISSION_FLAGS.to_be_bytes()].concat();
            self.answer_option(option, REP_INFO, &export)?;
            return self.answer_option(option, REP_ACK, &[]);
        }
    }

    fn answer_option(&mut self, option: u32, reply: u32, data: &[u8]) -> io::Result<()> {
        let length = data.len() as u32;
        let head = [option.to_be_bytes(), reply.to_be_bytes(), length.to_be_bytes()].concat();
        self.output
            .write_all(&[&OPTION_REPLY_MAGIC.to_be_bytes()[..], &head, data].concat())
    }

    fn transmit(&mut self) -> io::Result<()> {
        loop {
            self.end_late_writes()?;
            expect(u32::from_be_bytes(self.bytes()?) == REQUEST_MAGIC, "no request")?;
            let _command_flags = u16::from_be_bytes(self.bytes()?);
            let command = u16::from_be_bytes(self.bytes()?);
            let cookie = u64::from_be_bytes(self.bytes()?);
            let offset = u64::from_be_bytes(self.bytes()?);
            let length = u32::from_be_bytes(self.bytes()?);
            expect(length <= REQUEST_MAX, "a long request")?;
            match command {
                CMD_READ => {
                    let read = self.disk.read(offset, length as usize).map(<[u8]>::to_vec);
                    self.reply(cookie, read.as_deref().map_err(|_| EINVAL))?;
                }
                CMD_WRITE => {
                    let bytes = self.data(length)?;
                    if self.random.u32(0..LATE) == 0 {
                        let requests = self.random.u32(1..=LATER);
                        self.held.push(Held {
                            cookie,
                            offset,
                            bytes,
                            requests,
                        });
                    } else {
                        self.write(cookie, offset, &bytes)?;
                    }
                }
                CMD_FLUSH => {
                    self.disk.flush();
                    self.reply(cookie, Ok(&[]))?;
                }
                CMD_DISC => return Ok(()),
                _ => self.reply(cookie, Err(EINVAL))?,
            }
        }
    }

    /// Ends the writes whose time has come: by the requests since, or since nobody asks for anything else.
    fn end_late_writes(&mut self) -> io::Result<()> {
        self.held.iter_mut().for_each(|held| held.requests -= 1);
        while let Some(due) = self.held.iter().position(|held| held.requests == 0) {
            let held = self.held.remove(due);
            self.write(held.cookie, held.offset, &held.bytes)?;
        }
        while !self.held.is_empty() && self.input.buffer().is_empty() && !self.is_asked()? {
            let held = self.held.remove(self.random.usize(0..self.held.len()));
            self.write(held.cookie, held.offset, &held.bytes)?;
        }
        Ok(())
    }

    fn is_asked(&self) -> io::Result<bool> {
        let mut input = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut input, PollTimeout::from(IDLE_MS))? > 0)
    }

    fn write(&mut self, cookie: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.disk.write(offset, bytes);
        self.reply(cookie, written.map(|()| &[][..]).map_err(|_| EINVAL))
    }

    fn reply(&mut self, cookie: u64, result: Result<&[u8], u32>) -> io::Result<()> {
        let error = result.err().unwrap_or_default();
        let head = [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat();
        self.output.write_all(&[&head[..], result.unwrap_or_default()].concat())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn data(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn expect(holds: bool, what: &str) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("the client of the disk sent {what}"),
        ))
    }
}
