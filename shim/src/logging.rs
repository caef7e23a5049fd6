//! Log lines to the bundle's `log` FIFO, which containerd reads; never blocks on it.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Mutex,
};

/// A line longer than a pipe's atomic write (`PIPE_BUF`) could be torn by a full pipe.
const LINE_MAX_BYTES: usize = 4096;

struct FifoLogger(Mutex<File>);

/// Logs into `bundle/log` at info level, or debug. Without the FIFO nothing is logged.
pub fn init(bundle: &Path, debug: bool) {
    // Read and write, so that neither open nor write fails while containerd is down; non-blocking, so that a full pipe loses
    // lines and does not block the pod.
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(bundle.join("log"));
    if let Ok(fifo) = opened
        && log::set_boxed_logger(Box::new(FifoLogger(Mutex::new(fifo)))).is_ok()
    {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
}

impl Log for FifoLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("casemate") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record);
            if let Ok(mut fifo) = self.0.lock() {
                let _ = fifo.write_all(&line);
            }
        }
    }

    fn flush(&self) {}
}

/// In logrus' text format, like the other lines in containerd's log.
fn line(record: &Record<'_>) -> Vec<u8> {
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    };
    let mut line = format!("level={level} msg={:?} runtime=casemate", record.args().to_string()).into_bytes();
    line.truncate(LINE_MAX_BYTES - 1);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        let text = format!("a\n\"b\" {}", "x".repeat(10_000));
        let record = Record::builder()
            .level(Level::Warn)
            .args(format_args!("{text}"))
            .build()
            .to_owned_line();
        assert!(record.starts_with(b"level=warning msg=\"a\\n\\\"b\\\" x"));
        assert_eq!(record.len(), LINE_MAX_BYTES);
        assert_eq!(record.iter().filter(|b| **b == b'\n').count(), 1);
    }

    trait ToOwnedLine {
        fn to_owned_line(&self) -> Vec<u8>;
    }

    impl ToOwnedLine for Record<'_> {
        fn to_owned_line(&self) -> Vec<u8> {
            line(self)
        }
    }
}
