//! Requests that a hostile host could send to the agent, generated from a seed, each with the status codes that are correct answers.
//! A dev crate: the agent's own tests use it without a guest, the stories use it against a running one.
//!
//! A [`World`] names what a test sets up in the guest; a [`Stage`] is how much of it exists. No request of
//! [`Traffic::next`] may have an effect. The listed codes are a model of the policy's state.

#![forbid(unsafe_code)]

mod pod;
mod requests;

use protobuf::Message;
use ttrpc::{
    Code,
    proto::{MESSAGE_HEADER_LENGTH, MessageHeader, Request},
};

use agent_protocol::{MountLayerRequest, limits::ID_BYTES};

/// The service's name in requests.
const SERVICE: &str = "casemate.agent.v1.Agent";
/// Invalid ids.
const BAD_IDS: [&str; 9] = ["", "a/b", "..", ".", "a\0b", "-x", "../../etc", "ä", "a b"];

/// A seeded random number generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next random number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// True with probability 1/`count`.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Some bytes, fewer than `end`.
    pub fn bytes(&mut self, end: usize) -> Vec<u8> {
        let count = self.below(end);
        (0..count).map(|_| self.next_u64() as u8).collect()
    }
}

/// What the test sets up.
#[derive(Clone, Debug)]
pub struct World {
    /// Id of the sandbox and its only container; the policy allows no signals to it.
    pub container: String,
    /// The OCI spec with which the policy allows the container.
    pub spec: Vec<u8>,
    /// A process document that the policy denies in it.
    pub forbidden_process: Vec<u8>,
    /// A spec for the same id that the policy denies.
    pub forbidden_spec: Vec<u8>,
    /// A layer on the layer disk; if any layer is mounted, it is this one in slot 0.
    pub layer: MountLayerRequest,
}

/// How much of the world exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No policy was set.
    Closed,
    /// A policy is in force.
    Open,
    /// Layer, scratch disk and the container's overlay are mounted.
    Mounted,
    /// The container runs.
    Running,
}

/// A request and the codes that may answer it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Name of the method.
    pub method: &'static str,
    /// The protobuf message, possibly damaged.
    pub payload: Vec<u8>,
    /// Contains [`Code::OK`] only if success changes nothing.
    pub allowed: Vec<Code>,
    /// Bytes of the payload were changed at random.
    pub mutated: bool,
}

impl Sent {
    fn new(method: &'static str, message: &impl Message, allowed: &[Code]) -> Self {
        Self {
            method,
            // A valid message cannot fail to serialise.
            payload: message.write_to_bytes().unwrap_or_default(),
            allowed: allowed.to_vec(),
            mutated: false,
        }
    }

    /// The ttrpc frame of the request.
    pub fn frame(&self, stream: u32) -> Vec<u8> {
        self.frame_within(stream, 0)
    }

    /// The same with a deadline, in nanoseconds; 0 is none.
    pub fn frame_within(&self, stream: u32, nanoseconds: i64) -> Vec<u8> {
        let mut request = Request::new();
        request.timeout_nano = nanoseconds;
        request.service = SERVICE.to_owned();
        request.method = self.method.to_owned();
        request.payload = self.payload.clone();
        let body = request.write_to_bytes().unwrap_or_default();
        let mut frame: Vec<u8> = MessageHeader::new_request(stream, body.len() as u32).into();
        debug_assert_eq!(frame.len(), MESSAGE_HEADER_LENGTH);
        frame.extend(body);
        frame
    }
}

/// Refusals because of the guest's state.
const STATE: [Code; 3] = [Code::FAILED_PRECONDITION, Code::NOT_FOUND, Code::ALREADY_EXISTS];
/// Every refusal with a reason. UNKNOWN and INTERNAL are not among them: they are faults of the agent.
const REFUSALS: [Code; 6] = [
    Code::FAILED_PRECONDITION,
    Code::NOT_FOUND,
    Code::ALREADY_EXISTS,
    Code::PERMISSION_DENIED,
    Code::INVALID_ARGUMENT,
    Code::RESOURCE_EXHAUSTED,
];

/// Generates requests.
pub struct Traffic {
    /// The source of every choice.
    pub random: Random,
    world: World,
    /// One request in so many reaches the policy, which is slow.
    judged_one_in: usize,
}

impl Traffic {
    /// Generates requests about `world`.
    pub fn new(seed: u64, world: World, judged_one_in: usize) -> Self {
        Self {
            random: Random(seed),
            world,
            judged_one_in,
        }
    }

    /// The next request; it must have no effect at `stage`.
    pub fn next(&mut self, stage: Stage) -> Sent {
        if self.random.one_in(self.judged_one_in) && stage > Stage::Closed {
            return self.denied(stage);
        }
        match self.random.below(10) {
            0 | 1 => self.malformed(stage),
            2 | 3 => self.mutated(stage),
            _ => self.misplaced(stage),
        }
    }

    /// A request with some bytes changed that is harmless whatever it becomes.
    pub fn mutated(&mut self, stage: Stage) -> Sent {
        let mut sent = loop {
            let sent = self.misplaced(stage);
            // One changed byte could make these valid, or make them wait.
            if !matches!(
                sent.method,
                "PowerOff" | "MountOverlay" | "CreateContainer" | "MountLayer" | "MountScratch"
            ) {
                break sent;
            }
        };
        for _ in 0..=self.random.below(4) {
            let at = self.random.below(sent.payload.len());
            let byte = self.random.next_u64() as u8;
            match self.random.below(4) {
                0 => sent.payload.insert(at, byte),
                1 if !sent.payload.is_empty() => {
                    sent.payload.remove(at);
                }
                2 => sent.payload.truncate(at),
                _ => {
                    if let Some(there) = sent.payload.get_mut(at) {
                        *there ^= 1 << (byte & 7);
                    }
                }
            }
        }
        sent.allowed = REFUSALS.to_vec();
        if sent.method == "ListProcesses" {
            sent.allowed.push(Code::OK);
        }
        sent.mutated = true;
        sent
    }

    fn other(&mut self) -> String {
        format!("other-{}", self.random.below(1000))
    }

    /// The container in one of three cases, otherwise one that does not exist.
    fn some_container(&mut self) -> String {
        if self.random.one_in(3) {
            self.world.container.clone()
        } else {
            self.other()
        }
    }

    fn bad_id(&mut self) -> String {
        match self.random.below(BAD_IDS.len() + 2) {
            n if n < BAD_IDS.len() => BAD_IDS[n].to_owned(),
            n if n == BAD_IDS.len() => "a".repeat(ID_BYTES + 1),
            _ => "a".repeat(10_000),
        }
    }
}
