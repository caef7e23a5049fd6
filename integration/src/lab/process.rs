//! A program that runs with given input and a time limit, and its output.

use anyhow::{Context, Result, bail};
use std::io::{PipeWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{
    Arc, Mutex,
    mpsc::{self, Sender},
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time limit of a story's programs: emulation on a loaded host is slow.
const DEADLINE: Duration = Duration::from_secs(240);
/// A waiting story prints a line this often, because a machine without output counts as hung.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How many characters of an unexpected output are shown, from its beginning and from its end.
const SHOWN: usize = 1000;
/// Most characters of a line or word in a story's log.
const LONG: usize = 160;

/// A running program.
pub struct Program {
    words: String,
    started: Instant,
    child: Child,
    /// Dropped to end the input.
    input: Option<Sender<()>>,
    stdout: Stream,
    stderr: Stream,
}

/// A program that has exited.
#[derive(Debug)]
pub struct Ended {
    /// Its command line, as a shell would take it.
    pub words: String,
    /// Exit code, or 128 + signal.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Program {
    /// Starts a program and writes `stdin` to it; its input ends with [`Self::end_input`] or when the program is waited for.
    pub fn start<S: AsRef<str>>(words: &[S], stdin: &[u8]) -> Result<Self> {
        Self::spawn(words, stdin, Stdio::piped())
    }

    /// As [`Self::start`]; the caller may read standard output from a pipe.
    pub fn start_into<S: AsRef<str>>(words: &[S], output: PipeWriter) -> Result<Self> {
        Self::spawn(words, &[], output.into())
    }

    fn spawn<S: AsRef<str>>(words: &[S], stdin: &[u8], output: Stdio) -> Result<Self> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let (program, arguments) = words.split_first().context("no program was named")?;
        let shown = show(&words);
        println!("  $ {shown}");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = match child.stdout.take() {
            Some(stdout) => Stream::of(stdout),
            None => Stream::of(std::io::empty()),
        };
        let stderr = Stream::of(child.stderr.take().context("no standard error")?);
        let mut input = child.stdin.take().context("no standard input")?;
        let stdin = stdin.to_vec();
        let (keep, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            // A program may exit without reading all of its input.
            let _ = input.write_all(&stdin);
            let _ = ended.recv();
        });
        Ok(Self {
            words: shown,
            started: Instant::now(),
            child,
            input: Some(keep),
            stdout,
            stderr,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends its standard input after what was written.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until `ready` returns true or the program has exited.
    pub fn go_on_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        while !ready() && self.child.try_wait().context("cannot wait for a program")?.is_none() && self.started.elapsed() < DEADLINE {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The first lines of its standard output, as soon as they are complete.
    pub fn first_lines(&mut self, count: usize, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let text = String::from_utf8_lossy(&self.stdout.so_far()).into_owned();
            if text.matches('\n').count() >= count {
                return Ok(text.lines().take(count).collect::<Vec<_>>().join("\n"));
            }
            let gone = self.child.try_wait().context("cannot wait for a program")?.is_some();
            if gone || Instant::now() > end {
                let errors = String::from_utf8_lossy(&self.stderr.so_far()).into_owned();
                bail!(
                    "`{}` did not print {count} lines{}; it printed: {text}{errors}",
                    self.words,
                    if gone { " before it exited" } else { "" }
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its output so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for a program")?.is_some())
    }

    /// Kills it and discards its output.
    pub fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its exit; a program that exceeds the time limit is killed, which is an error.
    pub fn end(mut self) -> Result<Ended> {
        self.end_input();
        let mut reported = Instant::now();
        let status = loop {
            if reported.elapsed() > PROGRESS_INTERVAL {
                println!("    … for {:.0} s", self.started.elapsed().as_secs_f32());
                reported = Instant::now();
            }
            if let Some(status) = self.child.try_wait().context("cannot wait for a program")? {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let said = [self.stdout.end(), self.stderr.end()].concat();
                bail!("`{}` did not exit within {DEADLINE:?}; it printed: {}", self.words, shorten(&said));
            }
            std::thread::sleep(POLL);
        };
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let status = status.code().or(signal.map(|n| 128 + n)).unwrap_or(-1);
        let ended = Ended {
            words: self.words,
            status,
            stdout: self.stdout.end(),
            stderr: self.stderr.end(),
        };
        println!("    {status} after {:.1} s{}", self.started.elapsed().as_secs_f32(), ended.brief());
        Ok(ended)
    }
}

impl Ended {
    /// Runs a program without input and waits for its exit.
    pub fn of<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        Program::start(words, &[])?.end()
    }

    /// Standard output as text, without the final newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Both outputs as text.
    pub fn said(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr))
    }

    /// Checks that the exit code is `wanted`.
    pub fn exits_with(self, wanted: i32) -> Result<Self> {
        if self.status != wanted {
            bail!(
                "`{}` exited with {}, not {wanted}; it printed: {}",
                self.words,
                self.status,
                self.shown()
            );
        }
        Ok(self)
    }

    /// Checks that it failed with any exit code.
    pub fn fails(self) -> Result<Self> {
        if self.status == 0 {
            bail!("`{}` succeeded; it printed: {}", self.words, self.shown());
        }
        Ok(self)
    }

    /// Checks that standard output is `wanted`, except for a final newline.
    pub fn prints(self, wanted: &str) -> Result<Self> {
        if self.text() != wanted {
            bail!(
                "`{}` printed {:?}, not {wanted:?}; whole output: {}",
                self.words,
                self.text(),
                self.shown()
            );
        }
        Ok(self)
    }

    /// Checks that `wanted` appears in either output.
    pub fn mentions(self, wanted: &str) -> Result<Self> {
        if !self.said().contains(wanted) {
            bail!("`{}` does not mention {wanted:?}; it printed: {}", self.words, self.shown());
        }
        Ok(self)
    }

    fn shown(&self) -> String {
        shorten(&[&self.stdout[..], &self.stderr[..]].concat())
    }

    /// Up to two lines, for the story's log.
    fn brief(&self) -> String {
        let (Ok(out), Ok(err)) = (std::str::from_utf8(&self.stdout), std::str::from_utf8(&self.stderr)) else {
            return format!("\n    | {} bytes", self.stdout.len() + self.stderr.len());
        };
        let lines: Vec<&str> = out.lines().chain(err.lines()).filter(|line| !line.is_empty()).collect();
        let shown = lines.iter().take(2).map(|line| format!("\n    | {}", cut(line)));
        let more = if lines.len() > 2 {
            format!("\n    | … {} lines in all", lines.len())
        } else {
            String::new()
        };
        shown.collect::<String>() + &more
    }
}

/// The beginning of a line or word, which may be a policy in base64.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The command line as a shell would take it; long words (policies) are truncated.
fn show(words: &[&str]) -> String {
    let word = |word: &&str| match cut(word) {
        word if word.is_empty() || word.contains([' ', '\n', '$', ';']) => format!("'{word}'"),
        word => word,
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The beginning and the end of an output; for binary data, its length.
fn shorten(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("{} bytes that are not text", bytes.len());
    };
    let count = text.chars().count();
    if count <= 2 * SHOWN {
        return text.to_owned();
    }
    let begin: String = text.chars().take(SHOWN).collect();
    let end: String = text.chars().skip(count - SHOWN).collect();
    format!("{begin} … {end}")
}

/// An output that is read while the program runs.
struct Stream {
    so_far: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Stream {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let so_far = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&so_far);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 64 * 1024];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                if let Ok(mut all) = shared.lock() {
                    all.extend_from_slice(&bytes[..n]);
                }
            }
        });
        Self { so_far, reader }
    }

    fn so_far(&self) -> Vec<u8> {
        self.so_far.lock().map(|bytes| bytes.clone()).unwrap_or_default()
    }

    fn end(self) -> Vec<u8> {
        let _ = self.reader.join();
        self.so_far.lock().map(|mut bytes| std::mem::take(&mut *bytes)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_output_and_exit_code_are_passed_through() {
        let ended = Program::start(&["sh", "-c", "cat; echo err >&2; exit 7"], b"in")
            .unwrap()
            .end()
            .unwrap();
        assert!(ended.exits_with(7).unwrap().prints("in").unwrap().mentions("err").is_ok());
    }

    #[test]
    fn a_wrong_result_is_an_error_that_shows_it() {
        let error = Ended::of(&["sh", "-c", "echo out; exit 1"]).unwrap().exits_with(0).unwrap_err();
        assert!(error.to_string().contains("out"));
        assert!(Ended::of(&["true"]).unwrap().fails().is_err());
        assert!(Ended::of(&["echo", "a"]).unwrap().prints("b").is_err());
        assert_eq!(Ended::of(&["sh", "-c", "kill -9 $$"]).unwrap().status, 137);
    }

    #[test]
    fn long_words_are_truncated() {
        assert_eq!(show(&["a b", "c"]), "'a b' c");
        assert!(show(&[&"x".repeat(500)]).chars().count() <= LONG + 1);
    }
}
