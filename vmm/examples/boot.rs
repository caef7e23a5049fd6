//! Boots a kernel with `casemate-vmm`: opens the files, passes the descriptors, prints console and exit code.
//!
//! ```text
//! boot VMM KERNEL [--initrd F] [--cmdline TEXT] [--memory MIB] [--vcpus N] [--scratch F] [--layer F]... [--vsock PATH]
//!      [--rng] [--tap] [--stats-after MS] [--stop-after MS]
//! ```
//! The guest's console is this program's standard output, a terminal or a pipe. `--tap` gives the guest a network device whose other end is
//! the interface `casemate0` in a new network namespace of this program (`nsenter -n -t PID`).

#[path = "../tests/launcher/mod.rs"]
mod launcher;
#[path = "../tests/tap/mod.rs"]
mod tap;

use launcher::{Launcher, Outcome};
use std::{
    fs::{File, OpenOptions},
    os::{fd::AsFd, unix::net::UnixListener},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tap::Tap;
use vm_spec::{Network, control::Request};

fn main() -> Outcome<()> {
    // First: sockets with abstract names, as the control socket's, belong to a network namespace.
    let tap = std::env::args().any(|argument| argument == "--tap").then(Tap::new).transpose()?;
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (vmm, kernel) = (next("the path of casemate-vmm")?, next("the kernel")?);
    let mut vm = Launcher::new(File::open(kernel)?, std::io::stdout().as_fd().try_clone_to_owned()?)?;
    let (mut layers, mut then) = (Vec::new(), Vec::new());
    while let Ok(option) = next("") {
        let mut value = || next(&format!("the value of {option}"));
        match option.as_str() {
            "--initrd" => vm.initrd(File::open(value()?)?)?,
            "--cmdline" => vm.cmdline(&value()?),
            "--memory" => vm.spec.memory = value()?.parse::<u32>()?.try_into()?,
            "--vcpus" => vm.spec.vcpus = value()?.parse::<u8>()?.try_into()?,
            "--scratch" => vm.scratch(OpenOptions::new().read(true).write(true).open(value()?)?)?,
            "--layer" => layers.push(File::open(value()?)?),
            "--vsock" => vm.vsock(UnixListener::bind(value()?)?.into())?,
            "--rng" => vm.spec.rng = true,
            "--tap" => vm.spec.network = Some(Network { mac: [2, 0, 0, 0, 0, 1] }),
            "--stats-after" => then.push((Duration::from_millis(value()?.parse()?), Request::Stats)),
            "--stop-after" => then.push((Duration::from_millis(value()?.parse()?), Request::Stop)),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    vm.spec.layers = !layers.is_empty();
    let start = Instant::now();
    let (mut child, control) = vm.start(Command::new(vmm), Stdio::inherit())?;
    if !layers.is_empty() {
        println!("boot: {:?}", control.append(&layers)?);
    }
    if let Some(tap) = &tap {
        println!("boot: {:?}", control.ask(&Request::AttachTap, &[tap.file.try_clone()?])?);
    }
    for (after, request) in then {
        sleep(after.saturating_sub(start.elapsed()));
        println!("boot: {:?}", control.ask(&request, &[])?);
    }
    let status = child.wait()?;
    println!("boot: {status} after {:?}", start.elapsed());
    std::process::exit(status.code().unwrap_or(137));
}
