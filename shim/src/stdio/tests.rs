//! Streams between FIFOs and a socket that stands in for VMM and guest.

use super::*;
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{collections::HashMap, io::Write, sync::Arc};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::Mutex as AsyncMutex, time::timeout};

const SOON: Duration = Duration::from_secs(5);

/// The guest's ends of the streams by their tokens.
struct Guest {
    dir: TempDir,
    streams: Arc<AsyncMutex<HashMap<Vec<u8>, UnixStream>>>,
}

impl Guest {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("vsock.sock")).unwrap();
        let streams = Arc::<AsyncMutex<HashMap<Vec<u8>, UnixStream>>>::default();
        let kept = streams.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut hello = vec![0; "CONNECT 1025\n".len()];
                stream.read_exact(&mut hello).await.unwrap();
                stream.write_all(b"OK 1\n").await.unwrap();
                let mut token = vec![0; 16];
                stream.read_exact(&mut token).await.unwrap();
                kept.lock().await.insert(token, stream);
            }
        });
        Self { dir, streams }
    }

    fn fifo(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn open(&self, paths: StdioPaths) -> (Streams, AgentStdio) {
        Streams::open(&paths, &self.dir.path().join("vsock.sock")).await.unwrap()
    }

    async fn take(&self, token: &[u8]) -> UnixStream {
        let found = async {
            loop {
                if let Some(stream) = self.streams.lock().await.remove(token) {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, found).await.unwrap()
    }
}

/// Reads a FIFO to its end in a thread, as a client does.
fn client(path: &str) -> std::thread::JoinHandle<Vec<u8>> {
    let mut fifo = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).unwrap();
    nix::fcntl::fcntl(&fifo, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        fifo.read_to_end(&mut all).unwrap();
        all
    })
}

#[tokio::test]
async fn output_is_complete_before_the_fifo_closes() {
    let guest = Guest::start();
    let paths = StdioPaths {
        stdout: guest.fifo("out"),
        ..Default::default()
    };
    let path = paths.stdout.clone();
    let (streams, request) = guest.open(paths).await;
    let reader = client(&path);
    let mut stream = guest.take(&request.stdout_token).await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    assert!(!streams.drained(Duration::from_millis(20)).await);
    drop(stream);
    assert!(streams.drained(SOON).await);
    assert!(tokio::task::spawn_blocking(move || reader.join().unwrap()).await.unwrap() == sent);
    assert!(request.stdin_token.is_empty() && request.stderr_token.is_empty());
}

#[tokio::test]
async fn input_ends_only_after_close_io_and_the_clients_close() {
    let guest = Guest::start();
    let paths = StdioPaths {
        stdin: guest.fifo("in"),
        ..Default::default()
    };
    let path = paths.stdin.clone();
    let (streams, request) = guest.open(paths).await;
    let mut stream = guest.take(&request.stdin_token).await;
    let write = |text: &'static str, path: String| {
        OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    // The first client connects and closes: no end of file.
    write("one ", path.clone());
    let mut buffer = [0; 4];
    timeout(SOON, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert!(timeout(Duration::from_millis(50), stream.read(&mut buffer)).await.is_err());
    // The second writes, then CloseIO: all bytes arrive, then the end of file.
    let second = OpenOptions::new().write(true).open(&path).unwrap();
    (&second).write_all(b"two").unwrap();
    streams.close_stdin();
    drop(second);
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "two");
}

#[tokio::test]
async fn a_terminal_has_one_output() {
    let guest = Guest::start();
    let paths = StdioPaths {
        stdout: guest.fifo("out"),
        stderr: guest.fifo("err"),
        terminal: true,
        ..Default::default()
    };
    let (_streams, request) = guest.open(paths).await;
    assert!(request.terminal && request.stderr_token.is_empty() && request.stdout_token.len() == 16);
}

#[tokio::test]
async fn files_are_appended_to_and_other_schemes_are_refused() {
    let guest = Guest::start();
    let log = guest.dir.path().join("log");
    std::fs::write(&log, "old\n").unwrap();
    let paths = StdioPaths {
        stdout: format!("file://{}", log.display()),
        ..Default::default()
    };
    let (streams, request) = guest.open(paths).await;
    let mut stream = guest.take(&request.stdout_token).await;
    stream.write_all(b"new\n").await.unwrap();
    drop(stream);
    assert!(streams.drained(SOON).await);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "old\nnew\n");

    let other = StdioPaths {
        stdout: "npipe:///log".into(),
        ..Default::default()
    };
    let refused = Streams::open(&other, &guest.dir.path().join("vsock.sock")).await;
    assert!(matches!(refused, Err(StdioError::Scheme { .. })));
}

/// A logging program that writes its input and arguments into `dir`.
fn logging_program(dir: &Path) -> String {
    let script = dir.join("logger");
    let text = format!(
        "#!/bin/sh\necho \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" >{0}/said\nexec 5>&-\n/bin/cat <&3 >{0}/out\n/bin/cat <&4 >{0}/err\n",
        dir.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    format!("binary://{}?key=value&flag", script.display())
}

#[tokio::test]
async fn a_logging_program_gets_both_outputs_and_is_waited_for() {
    let guest = Guest::start();
    let uri = logging_program(guest.dir.path());
    let paths = StdioPaths {
        stdout: uri.clone(),
        stderr: uri,
        namespace: "ns".into(),
        id: "web".into(),
        ..Default::default()
    };
    let (streams, request) = guest.open(paths).await;
    let mut out = guest.take(&request.stdout_token).await;
    let mut err = guest.take(&request.stderr_token).await;
    out.write_all(b"to out").await.unwrap();
    err.write_all(b"to err").await.unwrap();
    drop((out, err));
    assert!(streams.drained(SOON).await);
    let read = |name: &str| std::fs::read_to_string(guest.dir.path().join(name)).unwrap();
    assert_eq!(
        (read("said").as_str(), read("out").as_str(), read("err").as_str()),
        ("ns web key value flag \n", "to out", "to err")
    );
}

#[tokio::test]
async fn a_logging_program_that_does_not_exist_is_an_error() {
    let guest = Guest::start();
    let paths = StdioPaths {
        stdout: "binary:///no/such/logger".into(),
        ..Default::default()
    };
    let refused = Streams::open(&paths, &guest.dir.path().join("vsock.sock")).await;
    assert!(matches!(refused, Err(StdioError::Open { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_reader_may_be_slow_but_not_idle() {
    let guest = Guest::start();
    let paths = StdioPaths {
        stdout: guest.fifo("out"),
        ..Default::default()
    };
    let path = paths.stdout.clone();
    let (streams, request) = guest.open(paths).await;
    let fifo = pipe::OpenOptions::new().open_receiver(&path).unwrap();
    let mut stream = guest.take(&request.stdout_token).await;
    tokio::spawn(async move {
        let _ = stream.write_all(&vec![7; 400_000]).await;
    });
    let reader = tokio::spawn(async move {
        let mut fifo = fifo;
        let mut taken = 0;
        let mut chunk = vec![0; 10_000];
        while taken < 300_000 {
            taken += fifo.read(&mut chunk).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (taken, fifo)
    });
    let drained = streams.drained_while_moving(Duration::from_secs(10)).await;
    assert!(!drained, "the reader stopped with 100 kB to go");
    assert!(reader.await.unwrap().0 >= 300_000, "but it was waited for as long as it read");
}
