//! Boots a kernel with `casemate-vmm` by hand: opens the files, passes the descriptors, shows console and exit code.
//!
//! ```text
//! boot VMM KERNEL [--initrd F] [--cmdline TEXT] [--memory MIB] [--vcpus N] [--scratch F] [--layer F]... [--vsock PATH]
//!      [--rng] [--stats-after MS] [--stop-after MS]
//! ```
//! The guest's console is this program's standard output.
#![forbid(unsafe_code)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, sendmsg, socket,
};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vm_spec::control::{Extent, MESSAGE_MAX_BYTES, Reply, Request};
use vm_spec::{Boot, Fd, HostData, Scratch, Tee, VmSpec, Vsock};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Descriptors that the VMM inherits, open until it is started.
#[derive(Default)]
struct Inherit(Vec<OwnedFd>);

impl Inherit {
    fn add(&mut self, file: impl Into<OwnedFd>) -> Outcome<Fd> {
        let file = file.into();
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        let number = Fd(file.as_raw_fd());
        self.0.push(file);
        Ok(number)
    }
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (vmm, kernel) = (next("the path of casemate-vmm")?, next("the kernel")?);
    let (mut initrd, mut cmdline, mut memory, mut vcpus) = (None, String::new(), 256u32, 1u8);
    let (mut scratch, mut layers, mut vsock, mut rng) = (None, Vec::new(), None, false);
    let (mut stats_after, mut stop_after) = (None, None);
    while let Ok(option) = next("") {
        let mut value = || next(&format!("the value of {option}"));
        match option.as_str() {
            "--initrd" => initrd = Some(value()?),
            "--cmdline" => cmdline = value()?,
            "--memory" => memory = value()?.parse()?,
            "--vcpus" => vcpus = value()?.parse()?,
            "--scratch" => scratch = Some(value()?),
            "--layer" => layers.push(value()?),
            "--vsock" => vsock = Some(value()?),
            "--rng" => rng = true,
            "--stats-after" => stats_after = Some(Duration::from_millis(value()?.parse()?)),
            "--stop-after" => stop_after = Some(Duration::from_millis(value()?.parse()?)),
            other => return Err(format!("unknown option {other}").into()),
        }
    }

    let control_path = std::env::temp_dir().join(format!("casemate-boot-{}.sock", std::process::id()));
    let mut inherit = Inherit::default();
    let spec = VmSpec {
        vcpus: vcpus.try_into()?,
        memory: memory.try_into()?,
        boot: Boot::Direct {
            kernel: inherit.add(File::open(kernel)?)?,
            kernel_sha256: HostData([0; 32]),
            initrd: initrd.map(|path| inherit.add(File::open(path)?)).transpose()?,
            initrd_sha256: HostData([0; 32]),
            cmdline,
        },
        tee: Tee::Plain,
        host_data: HostData([0; 32]),
        console: Some(inherit.add(std::io::stdout().as_fd().try_clone_to_owned()?)?),
        control: inherit.add(seqpacket_listener(&control_path)?)?,
        vsock: vsock
            .map(|path| {
                Outcome::Ok(Vsock {
                    listener: inherit.add(UnixListener::bind(path)?)?,
                })
            })
            .transpose()?,
        layers: !layers.is_empty(),
        scratch: scratch
            .map(|path| {
                Outcome::Ok(Scratch {
                    file: inherit.add(OpenOptions::new().read(true).write(true).open(path)?)?,
                })
            })
            .transpose()?,
        rng,
    };
    let mut spec_file = tempfile::tempfile()?;
    spec_file.write_all(&spec.to_json()?)?;
    spec_file.rewind()?;
    let spec_fd = inherit.add(spec_file)?;

    let start = Instant::now();
    let mut child = Command::new(vmm).arg("--spec-fd").arg(spec_fd.0.to_string()).spawn()?;
    drop(inherit);
    if !layers.is_empty() {
        println!("boot: {:?}", append(&control_path, &layers)?);
    }
    if let Some(after) = stats_after {
        sleep(after.saturating_sub(start.elapsed()));
        println!("boot: {:?}", ask(&control_path, &Request::Stats, &[])?);
    }
    if let Some(after) = stop_after {
        sleep(after.saturating_sub(start.elapsed()));
        println!("boot: {:?}", ask(&control_path, &Request::Stop, &[])?);
    }
    let status = child.wait()?;
    println!("boot: {status} after {:?}", start.elapsed());
    let _ = std::fs::remove_file(control_path);
    std::process::exit(status.code().unwrap_or(137));
}

fn seqpacket_listener(path: &PathBuf) -> Outcome<OwnedFd> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(8)?)?;
    Ok(listener)
}

fn append(control: &PathBuf, layers: &[String]) -> Outcome<Reply> {
    let files = layers.iter().map(File::open).collect::<Result<Vec<_>, _>>()?;
    let extents = files
        .iter()
        .map(|f| {
            Ok(Extent {
                offset: 0,
                length: f.metadata()?.len(),
            })
        })
        .collect::<Outcome<_>>()?;
    ask(control, &Request::AppendExtents(extents), &files)
}

fn ask(control: &PathBuf, request: &Request, files: &[File]) -> Outcome<Reply> {
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(control)?)?;
    let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let beside = if files.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(&serde_json::to_vec(request)?)],
        beside,
        MsgFlags::empty(),
        None,
    )?;
    let mut bytes = vec![0; MESSAGE_MAX_BYTES];
    let length = recv(client.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    Ok(serde_json::from_slice(&bytes[..length])?)
}
