//! The socket in a container's security context directory on which its processes ask for reports of the guest.
//!
//! ```text
//! curl --unix-socket $UVM_SECURITY_CONTEXT_DIR/report.sock http://guest/report?nonce=<32 to 128 hex digits>
//! ```
//! One request on a connection. Everything on it comes from a container, which must slow down neither the guest nor the other containers:
//! each has a few connections, a rate, and deadlines, and all wait in one short queue.

mod budget;
mod http;

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener as Listener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use permit_log::Nonce;
use policy::ContainerId;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixListener,
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

pub use self::http::Status;
use self::{budget::Budget, http::Asked};
use crate::guest_dir::Directory;

/// Name of the socket in the directory.
pub const SOCKET: &str = "report.sock";
/// Any user of the container may ask; the directory is read-only for them.
const SOCKET_MODE: u32 = 0o666;

/// Connections of a container at once; more wait to be accepted.
const CONNECTIONS: usize = 4;
/// Requests of all containers that wait for the guest.
const QUEUE: usize = 16;
/// A whole request must have come within this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// The answer must have been read within this time. Making it waits for whatever the guest does meanwhile.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer: a status of HTTP, and JSON if that is 200, else a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200, or what failed.
    pub status: Status,
    /// The text.
    pub text: String,
}

/// A request for a report.
pub struct Order {
    /// Whose process asks.
    pub container: ContainerId,
    /// What the report must bind.
    pub nonce: Nonce,
    /// Takes the answer.
    pub reply: oneshot::Sender<Answer>,
}

/// Takes requests of every container.
#[derive(Clone)]
pub struct Desk(mpsc::Sender<Order>);

/// Gives them to whoever makes reports.
pub type Orders = mpsc::Receiver<Order>;

/// The queue between containers and whoever makes reports.
pub fn desk() -> (Desk, Orders) {
    let (desk, orders) = mpsc::channel(QUEUE);
    (Desk(desk), orders)
}

impl Desk {
    async fn report(&self, container: &ContainerId, nonce: Nonce) -> Answer {
        let (reply, answer) = oneshot::channel();
        let container = container.clone();
        let busy = || Answer::refusal(Status::Unavailable, "too many requests for reports at once");
        if self.0.try_send(Order { container, nonce, reply }).is_err() {
            return busy();
        }
        answer.await.unwrap_or_else(|_| busy())
    }
}

impl Answer {
    /// A refusal in words.
    pub fn refusal(status: Status, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\n');
        Self { status, text }
    }
}

/// A container's socket; soon after it is dropped nobody is served any more.
pub struct Socket {
    serving: JoinHandle<()>,
    /// Ends the service when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl Socket {
    /// Ends the service and returns when that is done: each connection, too, keeps the container's root file system in use.
    ///
    /// Blocks, so it is for threads that may.
    pub fn close(self) {
        let Self { serving, _stop } = self;
        drop(_stop);
        // A panic of the task has closed its connections as well.
        let _ = Handle::current().block_on(serving);
    }
}

/// Serves a new socket in `directory`, which no process of the container can have seen yet.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(directory: &Directory, container: ContainerId, desk: Desk) -> io::Result<Socket> {
    let path = format!("{}/{SOCKET}", directory.path());
    let listener = Listener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let (_stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(accept_until(stopped, listener, container, desk));
    Ok(Socket { serving, _stop })
}

async fn accept_until(mut stopped: oneshot::Receiver<()>, listener: UnixListener, container: ContainerId, desk: Desk) {
    let budget = Arc::new(Mutex::new(Budget::full(Instant::now())));
    let mut exchanges = JoinSet::new();
    loop {
        tokio::select! {
            // Nothing is ever sent: the sender was dropped.
            _ = &mut stopped => break,
            Some(_) = exchanges.join_next() => {}
            accepted = listener.accept(), if exchanges.len() < CONNECTIONS => match accepted {
                Ok((connection, _)) => {
                    let (container, desk, budget) = (container.clone(), desk.clone(), budget.clone());
                    exchanges.spawn(async move { exchange(connection, &container, &desk, &budget).await });
                }
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
    exchanges.shutdown().await;
}

/// Reads one request and answers it.
async fn exchange(mut connection: impl AsyncRead + AsyncWrite + Unpin, container: &ContainerId, desk: &Desk, budget: &Mutex<Budget>) {
    let asked = match timeout(REQUEST_DEADLINE, read(&mut connection)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(_)) => return,
        Err(_) => Err(Answer::refusal(Status::Timeout, "no whole request came in time")),
    };
    let answer = async {
        let answer = match asked {
            Ok(Asked { nonce }) if budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) => {
                desk.report(container, nonce).await
            }
            Ok(_) => Answer::refusal(Status::TooMany, "too many requests of this container; one per second is answered"),
            Err(refusal) => refusal,
        };
        connection.write_all(&http::response(answer.status, &answer.text)).await?;
        connection.shutdown().await
    };
    // Who does not read the answer does not get it.
    let _ = timeout(ANSWER_DEADLINE, answer).await;
}

/// Reads to the end of a request's head.
async fn read(connection: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Asked, Answer>> {
    let mut head = Vec::new();
    loop {
        match http::parse(&head) {
            http::Parsed::Whole(asked) => return Ok(Ok(asked)),
            http::Parsed::Refused(status, text) => return Ok(Err(Answer::refusal(status, text))),
            http::Parsed::Partial => {}
        }
        let mut part = [0; 1024];
        match connection.read(&mut part).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&part[..count]),
        }
    }
}

#[cfg(test)]
mod tests;
