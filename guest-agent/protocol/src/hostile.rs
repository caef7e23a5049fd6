//! What a hostile host could send: seeded requests with what an agent may answer. For tests of the agent from both sides;
//! no program calls it, so none carries it.
//!
//! A [`World`] names what a test has set up in the guest; a [`Stage`] is how much of it stands. No request of
//! [`Traffic::next`] may have an effect, and each says which codes are right for it: that is the model of the policy's state.

use protobuf::Message;
use ttrpc::{
    Code,
    proto::{MESSAGE_HEADER_LENGTH, MessageHeader, Request},
};

use crate::{
    CreateContainerRequest, DeleteProcessRequest, ExecProcessRequest, ListProcessesRequest, MountLayerRequest, MountOverlayRequest,
    MountScratchRequest, PowerOffRequest, ResizeTerminalRequest, SetPolicyRequest, ShutdownContainerRequest, SignalProcessRequest,
    StartContainerRequest, Stdio, UnmountLayerRequest, UnmountOverlayRequest, UnmountScratchRequest, WaitProcessRequest,
    limits::{ID_BYTES, LAYERS, SPEC_BYTES},
};

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

    /// A field that no agent takes.
    fn malformed(&mut self, stage: Stage) -> Sent {
        let bad = self.bad_id();
        let good = self.some_container();
        let codes: &[Code] = if stage == Stage::Closed {
            // Whether the field or the gate is looked at first is the method's affair.
            &[Code::INVALID_ARGUMENT, Code::FAILED_PRECONDITION]
        } else {
            &[Code::INVALID_ARGUMENT]
        };
        match self.dice.below(14) {
            0 => Sent::new(
                "StartContainer",
                &StartContainerRequest {
                    container_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            1 => Sent::new(
                "ListProcesses",
                &ListProcessesRequest {
                    container_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            2 => Sent::new(
                "ShutdownContainer",
                &ShutdownContainerRequest {
                    container_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            3 => Sent::new(
                "UnmountOverlay",
                &UnmountOverlayRequest {
                    container_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            4 => Sent::new(
                "MountScratch",
                &MountScratchRequest {
                    sandbox_id: bad,
                    encrypted: true,
                    ..Default::default()
                },
                codes,
            ),
            5 => Sent::new(
                "UnmountScratch",
                &UnmountScratchRequest {
                    sandbox_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            6 => Sent::new(
                "SignalProcess",
                &SignalProcessRequest {
                    container_id: good,
                    signal: [0, 65, u32::MAX][self.dice.below(3)],
                    ..Default::default()
                },
                codes,
            ),
            7 => Sent::new(
                "UnmountLayer",
                &UnmountLayerRequest {
                    slot: LAYERS as u32 + self.dice.below(1 << 30) as u32,
                    ..Default::default()
                },
                codes,
            ),
            8 => {
                let mut layer = self.world.layer.clone();
                match self.dice.below(5) {
                    0 => layer.root_hash.truncate(31),
                    1 => layer.slot = LAYERS as u32,
                    2 => layer.first_sector |= 1,
                    3 => layer.total_blocks = u64::MAX,
                    _ => layer.data_blocks = 0,
                }
                Sent::new("MountLayer", &layer, codes)
            }
            9 => Sent::new(
                "MountOverlay",
                &MountOverlayRequest {
                    container_id: good,
                    sandbox_id: self.world.container.clone(),
                    layer_slots: if self.dice.one_in(2) { vec![LAYERS as u32] } else { vec![0; 129] },
                    ..Default::default()
                },
                codes,
            ),
            10 => Sent::new(
                "ResizeTerminal",
                &ResizeTerminalRequest {
                    container_id: good,
                    width: 0x1_0000,
                    ..Default::default()
                },
                codes,
            ),
            11 => {
                let spec = self.broken_document();
                Sent::new(
                    "CreateContainer",
                    &CreateContainerRequest {
                        container_id: good,
                        sandbox_id: self.world.container.clone(),
                        spec,
                        ..Default::default()
                    },
                    codes,
                )
            }
            12 => Sent::new(
                "ExecProcess",
                &ExecProcessRequest {
                    container_id: good,
                    exec_id: bad,
                    process: self.world.forbidden_process.clone(),
                    ..Default::default()
                },
                codes,
            ),
            _ => {
                let stdio = Stdio {
                    stdout_token: vec![7; 1 + self.dice.below(15)],
                    ..Default::default()
                };
                Sent::new(
                    "ExecProcess",
                    &ExecProcessRequest {
                        container_id: good,
                        exec_id: "x".to_owned(),
                        process: self.world.forbidden_process.clone(),
                        stdio: Some(stdio).into(),
                        ..Default::default()
                    },
                    codes,
                )
            }
        }
    }

    /// A document that is none, or that asks for what the guest never does.
    fn broken_document(&mut self) -> Vec<u8> {
        let spec = self.world.spec.clone();
        match self.dice.below(5) {
            0 => self.dice.bytes(200),
            // A whole one without its last brace.
            1 => spec[..self.dice.below(spec.len())].to_vec(),
            2 => "[".repeat(1000).into_bytes(),
            3 if self.dice.one_in(100) => vec![b' '; SPEC_BYTES + 1],
            _ => br#"{"process":{"args":["sh"],"cwd":"/../etc"}}"#.to_vec(),
        }
    }

    /// A well-formed request at the wrong time, or about something that does not exist.
    fn misplaced(&mut self, stage: Stage) -> Sent {
        let other = self.other();
        let some = self.some_container();
        let world = &self.world;
        let closed = stage == Stage::Closed;
        let gate = [Code::FAILED_PRECONDITION];
        let state: &[Code] = if closed { &gate } else { &STATE };
        match self.dice.below(if closed { 17 } else { 11 }) {
            0 => Sent::new(
                "StartContainer",
                &StartContainerRequest {
                    // Never the one that waits for its start: there is no such stage.
                    container_id: some,
                    ..Default::default()
                },
                state,
            ),
            1 => {
                let mut allowed = state.to_vec();
                if stage == Stage::Running {
                    allowed.push(Code::OK);
                }
                Sent::new(
                    "ListProcesses",
                    &ListProcessesRequest {
                        container_id: some,
                        ..Default::default()
                    },
                    &allowed,
                )
            }
            2 => Sent::new(
                "ExecProcess",
                &ExecProcessRequest {
                    container_id: other,
                    exec_id: "x".to_owned(),
                    process: world.forbidden_process.clone(),
                    ..Default::default()
                },
                state,
            ),
            3 => Sent::new(
                "SignalProcess",
                &SignalProcessRequest {
                    container_id: other,
                    signal: 9,
                    all: self.dice.one_in(2),
                    ..Default::default()
                },
                state,
            ),
            4 => Sent::new(
                "WaitProcess",
                &WaitProcessRequest {
                    container_id: other,
                    ..Default::default()
                },
                state,
            ),
            5 => Sent::new(
                "DeleteProcess",
                &DeleteProcessRequest {
                    container_id: some,
                    exec_id: "nobody".to_owned(),
                    ..Default::default()
                },
                state,
            ),
            6 => Sent::new(
                "ShutdownContainer",
                &ShutdownContainerRequest {
                    container_id: other,
                    ..Default::default()
                },
                state,
            ),
            7 => Sent::new(
                "ResizeTerminal",
                &ResizeTerminalRequest {
                    container_id: some,
                    width: 80,
                    height: 24,
                    ..Default::default()
                },
                state,
            ),
            8 => {
                let policy = self.dice.bytes(300);
                let allowed = if closed {
                    Code::PERMISSION_DENIED
                } else {
                    Code::FAILED_PRECONDITION
                };
                let request = SetPolicyRequest {
                    policy,
                    ..Default::default()
                };
                Sent::new("SetPolicy", &request, &[allowed])
            }
            9 => Sent::new(
                "CreateContainer",
                &CreateContainerRequest {
                    container_id: other,
                    sandbox_id: world.container.clone(),
                    spec: world.spec.clone(),
                    ..Default::default()
                },
                state,
            ),
            10 => Sent::new(
                "MountOverlay",
                &MountOverlayRequest {
                    container_id: other,
                    sandbox_id: world.container.clone(),
                    layer_slots: vec![7],
                    ..Default::default()
                },
                state,
            ),
            11 => Sent::new("PowerOff", &PowerOffRequest::new(), state),
            12 => Sent::new("MountLayer", &world.layer, state),
            13 => Sent::new(
                "MountScratch",
                &MountScratchRequest {
                    sandbox_id: world.container.clone(),
                    encrypted: true,
                    ..Default::default()
                },
                state,
            ),
            14 => Sent::new("UnmountLayer", &UnmountLayerRequest::new(), state),
            15 => Sent::new(
                "UnmountScratch",
                &UnmountScratchRequest {
                    sandbox_id: world.container.clone(),
                    ..Default::default()
                },
                state,
            ),
            _ => Sent::new(
                "UnmountOverlay",
                &UnmountOverlayRequest {
                    container_id: some,
                    ..Default::default()
                },
                state,
            ),
        }
    }

    /// A well-formed request that the policy denies, or allows and the guest then refuses.
    fn denied(&mut self, stage: Stage) -> Sent {
        let other = self.other();
        let world = &self.world;
        let container = world.container.clone();
        let denied = [Code::PERMISSION_DENIED];
        let either = [
            Code::PERMISSION_DENIED,
            Code::FAILED_PRECONDITION,
            Code::NOT_FOUND,
            Code::ALREADY_EXISTS,
        ];
        match (self.dice.below(6), stage) {
            (0, _) => {
                let mut layer = world.layer.clone();
                let at = self.dice.below(layer.root_hash.len());
                layer.root_hash[at] ^= 1 << self.dice.below(8);
                layer.slot = 1 + self.dice.below(100) as u32;
                Sent::new("MountLayer", &layer, &denied)
            }
            (1, _) => Sent::new(
                "MountScratch",
                &MountScratchRequest {
                    sandbox_id: other,
                    encrypted: false,
                    ..Default::default()
                },
                &denied,
            ),
            (2, Stage::Running) => Sent::new(
                "ExecProcess",
                &ExecProcessRequest {
                    container_id: container,
                    exec_id: other,
                    process: world.forbidden_process.clone(),
                    ..Default::default()
                },
                &denied,
            ),
            (3, Stage::Running) => Sent::new(
                "SignalProcess",
                &SignalProcessRequest {
                    container_id: container,
                    signal: 1 + self.dice.below(64) as u32,
                    all: self.dice.one_in(2),
                    ..Default::default()
                },
                &denied,
            ),
            (2 | 3, Stage::Mounted) => Sent::new(
                "CreateContainer",
                &CreateContainerRequest {
                    container_id: container.clone(),
                    sandbox_id: container,
                    spec: world.forbidden_spec.clone(),
                    ..Default::default()
                },
                &denied,
            ),
            (4, Stage::Mounted | Stage::Running) => Sent::new(
                "MountOverlay",
                &MountOverlayRequest {
                    container_id: other,
                    sandbox_id: container,
                    layer_slots: vec![],
                    ..Default::default()
                },
                &denied,
            ),
            // In use: the policy would allow it.
            (5, Stage::Mounted | Stage::Running) => Sent::new("UnmountLayer", &UnmountLayerRequest::new(), &either),
            (4, _) => Sent::new(
                "UnmountScratch",
                &UnmountScratchRequest {
                    sandbox_id: other,
                    ..Default::default()
                },
                &either,
            ),
            (_, _) => Sent::new(
                "UnmountLayer",
                &UnmountLayerRequest {
                    slot: 1 + self.dice.below(100) as u32,
                    ..Default::default()
                },
                &either,
            ),
        }
    }
}
