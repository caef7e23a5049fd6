//! Admission control before any method: payload length, number of concurrent requests, and the deadline of the answer.
//!
//! ttrpc starts a task for every frame, and this runs before the next frame is read: a request beyond a limit holds memory only
//! until it is refused. A method that panics is answered too; its panic fails no other request.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use agent_protocol::limits::{
    FRAGMENT_BYTES, IN_FLIGHT, IN_FLIGHT_BYTES, NETWORK_BYTES, PLAIN_REQUEST_BYTES, POD_FILE_BYTES, POLICY_BYTES, REFERENCE_BYTES,
    REQUEST_DEADLINE, REQUEST_FRAME_BYTES, SPEC_BYTES,
};
use futures_util::FutureExt;
use tokio::{sync::Semaphore, time::timeout};
use ttrpc::{
    Code,
    r#async::{MethodHandler, Service, TtrpcContext},
    proto::{Request, Response},
};

/// Methods that return when something happens in the guest; the sandbox limits them separately.
const WAITING: &str = "Wait";
/// The method that waits for a registry, with limits of its own.
const PULLING: &str = "PullImage";

/// Capacity for the requests of all connections.
struct Room {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A method with its limits.
struct Admitted {
    method: Arc<dyn MethodHandler + Send + Sync>,
    /// Longest payload.
    bytes: usize,
    /// `None` for a method that waits.
    deadline: Option<Duration>,
    room: Arc<Room>,
}

/// Wraps every method in its limits.
pub fn limited(services: HashMap<String, Service>) -> HashMap<String, Service> {
    let room = Arc::new(Room {
        requests: Arc::new(Semaphore::new(IN_FLIGHT)),
        bytes: Arc::new(Semaphore::new(IN_FLIGHT_BYTES)),
    });
    let limited = |(name, service): (String, Service)| {
        let methods = service.methods.into_iter().map(|(path, method)| {
            let admitted = Admitted {
                bytes: payload_bytes(&path),
                deadline: deadline(&path),
                method: method.into(),
                room: room.clone(),
            };
            (path, Box::new(admitted) as Box<dyn MethodHandler + Send + Sync>)
        });
        let service = Service {
            methods: methods.collect(),
            streams: service.streams,
        };
        (name, service)
    };
    services.into_iter().map(limited).collect()
}

/// Time for the answer; `None` for a method that waits.
fn deadline(method: &str) -> Option<Duration> {
    let waits = method.starts_with(WAITING) || method == PULLING;
    (!waits).then_some(REQUEST_DEADLINE)
}

/// Longest payload of a method. Decoding can take a multiple of it, so each method gets no more than it needs.
fn payload_bytes(method: &str) -> usize {
    match method {
        "SetPolicy" => POLICY_BYTES + 2 * REFERENCE_BYTES + REQUEST_FRAME_BYTES,
        "LoadFragment" => FRAGMENT_BYTES + REQUEST_FRAME_BYTES,
        "CreateContainer" | "ExecProcess" | "ExecExternal" | "UpdateContainer" => SPEC_BYTES + REQUEST_FRAME_BYTES,
        "WritePodFiles" => 3 * POD_FILE_BYTES + REQUEST_FRAME_BYTES,
        "ConfigureNetwork" => NETWORK_BYTES,
        _ => PLAIN_REQUEST_BYTES,
    }
}

fn refusal(code: Code, message: impl Into<String>) -> Response {
    let mut response = Response::new();
    response.set_status(ttrpc::get_status(code, message.into()));
    response
}

impl Admitted {
    async fn admit(&self, payload: usize, answer: impl Future<Output = ttrpc::Result<Response>> + Send + 'static) -> Response {
        if payload > self.bytes {
            let text = format!("the request has {payload} bytes, more than the {} of its method", self.bytes);
            return refusal(Code::INVALID_ARGUMENT, text);
        }
        // The panic hook that main installs reports it.
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let Some(deadline) = self.deadline else {
            return settled(answer.await.ok());
        };
        let request = self.room.requests.clone().try_acquire_owned();
        let payload = u32::try_from(payload).unwrap_or(u32::MAX);
        let bytes = self.room.bytes.clone().try_acquire_many_owned(payload);
        let (Ok(request), Ok(bytes)) = (request, bytes) else {
            return refusal(Code::RESOURCE_EXHAUSTED, "too many requests at once");
        };
        // In a task of its own, which holds the room until it ends: ttrpc drops the caller of this function at a deadline that the
        // host chooses.
        let work = tokio::spawn(async move {
            let answer = timeout(deadline, answer).await;
            drop((request, bytes));
            answer
        });
        match work.await {
            Ok(Ok(answer)) => settled(answer.ok()),
            Ok(Err(_)) => refusal(Code::DEADLINE_EXCEEDED, format!("no answer within {deadline:?}")),
            Err(_) => settled(None),
        }
    }
}

/// Calls the method; `None` if it panicked.
fn settled(answer: Option<ttrpc::Result<Response>>) -> Response {
    match answer {
        Some(Ok(response)) => response,
        // A refusal by the method is a response; the only error left is a payload that cannot be decoded.
        Some(Err(_)) => refusal(Code::INVALID_ARGUMENT, "the request is not a message of its method"),
        None => refusal(Code::INTERNAL, "the agent failed on this request"),
    }
}

#[async_trait::async_trait]
impl MethodHandler for Admitted {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let payload = request.payload.len();
        let method = self.method.clone();
        Ok(self.admit(payload, async move { method.handler(context, request).await }).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unused;

    #[async_trait::async_trait]
    impl MethodHandler for Unused {
        async fn handler(&self, _: TtrpcContext, _: Request) -> ttrpc::Result<Response> {
            unreachable!("the tests supply their own answers")
        }
    }

    /// `method` with capacity for `requests` requests of 10 bytes together.
    fn admitted(method: &str, requests: usize) -> Admitted {
        Admitted {
            method: Arc::new(Unused),
            bytes: payload_bytes(method),
            deadline: deadline(method),
            room: Arc::new(Room {
                requests: Arc::new(Semaphore::new(requests)),
                bytes: Arc::new(Semaphore::new(10)),
            }),
        }
    }

    async fn fine() -> ttrpc::Result<Response> {
        Ok(refusal(Code::OK, ""))
    }

    fn code(response: &Response) -> Code {
        response.status().code()
    }

    #[tokio::test]
    async fn the_length_limit_is_that_of_the_method() {
        let plain = admitted("MountLayer", 1);
        assert_eq!(code(&plain.admit(10, fine()).await), Code::OK);
        assert_eq!(code(&plain.admit(PLAIN_REQUEST_BYTES + 1, fine()).await), Code::INVALID_ARGUMENT);
        assert!(payload_bytes("SetPolicy") > POLICY_BYTES + 2 * REFERENCE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_count_until_they_are_answered() {
        let method = admitted("MountLayer", 1);
        let stuck = method.admit(4, std::future::pending());
        let second = async {
            tokio::task::yield_now().await;
            code(&method.admit(1, fine()).await)
        };
        let (stuck, second) = tokio::join!(stuck, second);
        assert_eq!((code(&stuck), second), (Code::DEADLINE_EXCEEDED, Code::RESOURCE_EXHAUSTED));
        assert_eq!(code(&method.admit(10, fine()).await), Code::OK, "the capacity is free again");
        assert_eq!(code(&method.admit(11, fine()).await), Code::RESOURCE_EXHAUSTED, "too many bytes");
    }

    #[tokio::test]
    async fn a_request_that_its_caller_drops_takes_up_room_until_it_ends() {
        let method = admitted("MountLayer", 1);
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let work = async {
            let _ = released.await;
            fine().await
        };
        let host = timeout(Duration::from_nanos(1), method.admit(1, work));
        assert!(host.await.is_err(), "the host's deadline is over");
        assert_eq!(code(&method.admit(1, fine()).await), Code::RESOURCE_EXHAUSTED);
        release.send(()).unwrap();
        while method.room.requests.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(code(&method.admit(1, fine()).await), Code::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_does_not_count_and_has_no_deadline() {
        for name in ["WaitProcess", "PullImage"] {
            let method = admitted(name, 0);
            let late = async {
                tokio::time::sleep(2 * REQUEST_DEADLINE).await;
                fine().await
            };
            assert_eq!(code(&method.admit(1, late).await), Code::OK);
        }
    }

    #[tokio::test]
    async fn bad_payloads_and_panics_are_answered() {
        let method = admitted("MountLayer", 1);
        let bad = async { Err(ttrpc::Error::Others("tag 7 at byte 3 of secret".to_owned())) };
        let answer = method.admit(1, bad).await;
        assert_eq!(code(&answer), Code::INVALID_ARGUMENT);
        assert!(!answer.status().message().contains("secret"));
        let panics = async { panic!("on purpose") };
        assert_eq!(code(&method.admit(1, panics).await), Code::INTERNAL);
    }
}
