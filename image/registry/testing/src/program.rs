//! Debian's programs, run by a test on the loopback and ended with it.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Tries to connect, a tenth of a second apart.
const TRIES: u32 = 600;

/// A running program.
pub struct Program(Child);

impl Program {
    /// Starts it, and waits until it listens.
    pub fn start(command: &mut Command, log: &Path, port: u16) -> Self {
        let log_file = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().unwrap())
            .stderr(log_file)
            .spawn()
            .unwrap();
        let mut program = Self(child);
        for _ in 0..TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return program;
            }
            let ended = program.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {}", std::fs::read_to_string(log).unwrap());
            sleep(Duration::from_millis(100));
        }
        panic!("{command:?} does not listen: {}", std::fs::read_to_string(log).unwrap());
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether every program is installed; says which is not.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let missing = programs.iter().find(|program| {
        let found = |directory: &str| Path::new(directory).join(program).exists();
        !path.split(':').any(found)
    });
    if let Some(program) = missing {
        println!("skipped: {test}: {program} is not installed (make setup)");
    }
    missing.is_none()
}

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
