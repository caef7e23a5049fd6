//! A program that is started with input and a time limit, and what it said.

use anyhow::{Context, Result, bail};
use std::io::{PipeWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{
    Arc, Mutex,
    mpsc::{self, Sender},
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest any single program of a story may take: emulation on a host under load is slow.
const DEADLINE: Duration = Duration::from_secs(240);
/// A waiting story prints a line this often: a silent machine counts as hung.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How much of an output is shown when it is not what was wanted: characters from its beginning and from its end.
const SHOWN: usize = 1000;
/// Characters of a line or word in a story's log.
const LONG: usize = 160;

/// A running program.
pub struct Program {
    words: String,
    started: Instant,
    child: Child,
    /// Dropped when the input is to end.
    input: Option<Sender<()>>,
    stdout: Stream,
    stderr: Stream,
}

/// An ended program.
#[derive(Debug)]
pub struct Ended {
    /// As it was typed.
    pub words: String,
    /// Exit code, or 128 + signal.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Program {
    /// Starts a program and types `stdin` into it; its input ends with [`Self::end_input`] or when it is waited for.
    pub fn start<S: AsRef<str>>(words: &[S], stdin: &[u8]) -> Result<Self> {
        Self::spawn(words, stdin, Stdio::piped())
    }

    /// As [`Self::start`], with standard output into a pipe that is read by the caller, or not.
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
            // A program that ends without reading everything is no fault of the writer.
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

    /// Ends its standard input, after what was typed.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until `ready`, or until it has ended.
    pub fn go_on_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        while !ready() && self.child.try_wait().context("cannot wait for a program")?.is_none() && self.started.elapsed() < DEADLINE {
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// The first lines of its standard output, as soon as they are there.
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
                    "`{}` did not print {count} lines{}; it said: {text}{errors}",
                    self.words,
                    if gone { " before it ended" } else { "" }
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// What it has printed so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for a program")?.is_some())
    }

    /// Ends it by force; what it said does not matter.
    pub fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; a program that takes too long is killed, and that is an error.
    pub fn end(mut self) -> Result<Ended> {
        self.end_input();
        let mut spoken = Instant::now();
        let status = loop {
            if spoken.elapsed() > SIGN_OF_LIFE {
                println!("    … for {:.0} s", self.started.elapsed().as_secs_f32());
                spoken = Instant::now();
            }
            if let Some(status) = self.child.try_wait().context("cannot wait for a program")? {
                break status;
            }
            if self.started.elapsed() > DEADLINE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let said = [self.stdout.end(), self.stderr.end()].concat();
                bail!("`{}` did not end within {DEADLINE:?}; it said: {}", self.words, shorten(&said));
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
    /// Starts a program, no input, and waits for its end.
    pub fn of<S: AsRef<str>>(words: &[S]) -> Result<Self> {
        Program::start(words, &[])?.end()
    }

    /// Standard output as text, without the line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Both outputs as text.
    pub fn said(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr))
    }

    /// The exit code is `wanted`.
    pub fn exits_with(self, wanted: i32) -> Result<Self> {
        if self.status != wanted {
            bail!(
                "`{}` ended with {}, not {wanted}; it said: {}",
                self.words,
                self.status,
                self.shown()
            );
        }
        Ok(self)
    }

    /// It failed, with whatever code.
    pub fn fails(self) -> Result<Self> {
        if self.status == 0 {
            bail!("`{}` succeeded; it said: {}", self.words, self.shown());
        }
        Ok(self)
    }

    /// Standard output is exactly `wanted`, line end aside.
    pub fn prints(self, wanted: &str) -> Result<Self> {
        if self.text() != wanted {
            bail!(
                "`{}` printed {:?}, not {wanted:?}; all it said: {}",
                self.words,
                self.text(),
                self.shown()
            );
        }
        Ok(self)
    }

    /// `wanted` is somewhere in what it said.
    pub fn mentions(self, wanted: &str) -> Result<Self> {
        if !self.said().contains(wanted) {
            bail!("`{}` does not mention {wanted:?}; it said: {}", self.words, self.shown());
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

/// The beginning of a line or word that may be a policy's base64.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A command line as one would type it; long words (policies) are cut.
fn show(words: &[&str]) -> String {
    let word = |word: &&str| match cut(word) {
        word if word.is_empty() || word.contains([' ', '\n', '$', ';']) => format!("'{word}'"),
        word => word,
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The beginning and the end of what a program said; of binary data, its length.
fn shorten(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("{} bytes that are no text", bytes.len());
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
    fn input_output_and_code_are_carried() {
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
    fn long_words_are_cut() {
        assert_eq!(show(&["a b", "c"]), "'a b' c");
        assert!(show(&[&"x".repeat(500)]).chars().count() <= LONG + 1);
    }
}
