//! Requests that a hostile host could send to the agent, generated from a seed, each with the codes that may answer it.
//! A dev crate: the agent's own tests use it without a guest, the stories against a running one.
//!
//! A [`World`] names what a test sets up in the guest; a [`Stage`] is how much of it exists yet. No request of
//! [`Traffic::next`] may have an effect, and each lists the codes that are right for it: that is the model of the policy's state.

#![forbid(unsafe_code)]

mod requests;

use protobuf::Message;
use ttrpc::{
    Code,
    proto::{MESSAGE_HEADER_LENGTH, MessageHeader, Request},
};

use agent_protocol::{MountLayerRequest, limits::ID_BYTES};

/// The service's name in requests.
const SERVICE: &str = "casemate.agent.v1.Agent";
/// Ids that are none.
const BAD_IDS: [&str; 9] = ["", "a/b", "..", ".", "a\0b", "-x", "../../etc", "ä", "a b"];

/// Numbers that a seed fixes (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Some bytes, fewer than `end`.
    pub fn bytes(&mut self, end: usize) -> Vec<u8> {
        let count = self.below(end);
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

/// What the test sets up.
#[derive(Clone, Debug)]
pub struct World {
    /// Sandbox and only container; its policy sends it no signals.
    pub container: String,
    /// The OCI document under which the policy lets the container run.
    pub spec: Vec<u8>,
    /// A process document that the policy does not let run in it.
    pub forbidden_process: Vec<u8>,
    /// The document of a container that the policy does not let run, for the same id.
    pub forbidden_spec: Vec<u8>,
    /// A layer that lies on the disk, mounted in slot 0 when anything is.
    pub layer: MountLayerRequest,
}

/// How much of the world stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No policy was set.
    Closed,
    /// The policy is in force.
    Open,
    /// Layer, scratch disk and the container's overlay are mounted.
    Mounted,
    /// The container runs.
    Running,
}

/// A request and the codes with which it may be answered.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Name of the method.
    pub method: &'static str,
    /// The protobuf message, or what is left of it.
    pub payload: Vec<u8>,
    /// [`Code::OK`] only where success changes nothing.
    pub allowed: Vec<Code>,
    /// The payload was changed byte by byte.
    pub mutated: bool,
}

impl Sent {
    fn new(method: &'static str, message: &impl Message, allowed: &[Code]) -> Self {
        Self {
            method,
            // Our own messages: this cannot fail.
            payload: message.write_to_bytes().unwrap_or_default(),
            allowed: allowed.to_vec(),
            mutated: false,
        }
    }

    /// The frame that carries it.
    pub fn frame(&self, stream: u32) -> Vec<u8> {
        let mut request = Request::new();
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

/// Refusals by the state of the guest.
const STATE: [Code; 3] = [Code::FAILED_PRECONDITION, Code::NOT_FOUND, Code::ALREADY_EXISTS];
/// Every refusal that names its reason. UNKNOWN and INTERNAL are none: they are faults of the agent.
const REFUSALS: [Code; 6] = [
    Code::FAILED_PRECONDITION,
    Code::NOT_FOUND,
    Code::ALREADY_EXISTS,
    Code::PERMISSION_DENIED,
    Code::INVALID_ARGUMENT,
    Code::RESOURCE_EXHAUSTED,
];

/// Makes requests.
pub struct Traffic {
    /// Decides everything.
    pub dice: Dice,
    world: World,
    /// One in so many requests is one that the policy itself has to judge, which takes the agent long.
    judged_one_in: usize,
}

impl Traffic {
    /// Requests about `world`.
    pub fn new(seed: u64, world: World, judged_one_in: usize) -> Self {
        Self {
            dice: Dice(seed),
            world,
            judged_one_in,
        }
    }

    /// The next request, none of which may have an effect at `stage`.
    pub fn next(&mut self, stage: Stage) -> Sent {
        if self.dice.one_in(self.judged_one_in) && stage > Stage::Closed {
            return self.denied(stage);
        }
        match self.dice.below(10) {
            0 | 1 => self.malformed(stage),
            2 | 3 => self.mutated(stage),
            _ => self.misplaced(stage),
        }
    }

    /// A request with some bytes changed that stays harmless whatever it happens to become.
    pub fn mutated(&mut self, stage: Stage) -> Sent {
        let mut sent = loop {
            let sent = self.misplaced(stage);
            // One changed byte can make these right ones, or ones that wait.
            if !matches!(
                sent.method,
                "PowerOff" | "MountOverlay" | "CreateContainer" | "MountLayer" | "MountScratch"
            ) {
                break sent;
            }
        };
        for _ in 0..=self.dice.below(4) {
            let at = self.dice.below(sent.payload.len());
            let byte = self.dice.roll() as u8;
            match self.dice.below(4) {
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
        format!("other-{}", self.dice.below(1000))
    }

    /// The container in one of three cases, else one that does not exist.
    fn some_container(&mut self) -> String {
        if self.dice.one_in(3) {
            self.world.container.clone()
        } else {
            self.other()
        }
    }

    fn bad_id(&mut self) -> String {
        match self.dice.below(BAD_IDS.len() + 2) {
            n if n < BAD_IDS.len() => BAD_IDS[n].to_owned(),
            n if n == BAD_IDS.len() => "a".repeat(ID_BYTES + 1),
            _ => "a".repeat(10_000),
        }
    }
}
