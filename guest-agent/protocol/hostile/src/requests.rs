//! The requests themselves: malformed, at the wrong time, or denied by the policy.

use ttrpc::Code;

use crate::{STATE, Sent, Stage, Traffic};
use agent_protocol::{
    AttachDiskRequest, CreateContainerRequest, DeleteProcessRequest, ExecExternalRequest, ExecProcessRequest, ListProcessesRequest,
    LoadFragmentRequest, MountLayerRequest, MountOverlayRequest, MountScratchRequest, MountShareRequest, PowerOffRequest, PullImageRequest,
    ResizeTerminalRequest, SetPolicyRequest, ShutdownContainerRequest, SignalProcessRequest, StartContainerRequest, Stdio,
    UnmountLayerRequest, UnmountOverlayRequest, UnmountScratchRequest, WaitProcessRequest,
    limits::{LAYERS, SHARES, SPEC_BYTES},
};

impl Traffic {
    /// A malformed field.
    pub(super) fn malformed(&mut self, stage: Stage) -> Sent {
        let bad = self.bad_id();
        let good = self.some_container();
        let codes: &[Code] = if stage == Stage::Closed {
            // Whether a method checks the field or the gate first is not specified.
            &[Code::INVALID_ARGUMENT, Code::FAILED_PRECONDITION]
        } else {
            &[Code::INVALID_ARGUMENT]
        };
        match self.random.below(22) {
            20 | 21 => self.malformed_of_pod(bad, good, codes),
            18 => {
                let digest = "a".repeat(self.random.below(70));
                let request = PullImageRequest {
                    sandbox_id: good,
                    // Never 64 digits and a name.
                    image: format!("r.corp/{bad}@sha256:{digest}g"),
                    ..Default::default()
                };
                Sent::new("PullImage", &request, codes)
            }
            19 => {
                let request = MountLayerRequest {
                    pulled: true,
                    first_sector: 1 + self.random.below(1 << 30) as u64,
                    root_hash: vec![1; 32],
                    ..Default::default()
                };
                Sent::new("MountLayer", &request, codes)
            }
            14 => {
                let request = LoadFragmentRequest {
                    message: self.random.bytes(300),
                    media_type: if self.random.one_in(2) { String::new() } else { good },
                    ..Default::default()
                };
                Sent::new("LoadFragment", &request, codes)
            }
            15 => {
                let request = ExecExternalRequest {
                    exec_id: "x".to_owned(),
                    args: vec!["a\0b".to_owned(); self.random.below(3)],
                    working_dir: if self.random.one_in(2) { "/".to_owned() } else { bad },
                    ..Default::default()
                };
                Sent::new("ExecExternal", &request, codes)
            }
            16 => Sent::new(
                "MountShare",
                &MountShareRequest {
                    container_id: bad,
                    ..Default::default()
                },
                codes,
            ),
            17 => Sent::new(
                "AttachDisk",
                &AttachDiskRequest {
                    slot: SHARES as u32 + self.random.below(1 << 30) as u32,
                    ..Default::default()
                },
                codes,
            ),
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
                    encrypted: self.random.below(2) == 0,
                    in_memory: self.random.below(2) == 0,
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
                    signal: [0, 65, u32::MAX][self.random.below(3)],
                    ..Default::default()
                },
                codes,
            ),
            7 => Sent::new(
                "UnmountLayer",
                &UnmountLayerRequest {
                    slot: LAYERS as u32 + self.random.below(1 << 30) as u32,
                    ..Default::default()
                },
                codes,
            ),
            8 => {
                let mut layer = self.world.layer.clone();
                match self.random.below(5) {
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
                    layer_slots: if self.random.one_in(2) { vec![LAYERS as u32] } else { vec![0; 129] },
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
                    stdout_token: vec![7; 1 + self.random.below(15)],
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

    /// A document that is malformed, or that requests what the guest never does.
    fn broken_document(&mut self) -> Vec<u8> {
        let spec = self.world.spec.clone();
        match self.random.below(5) {
            0 => self.random.bytes(200),
            // A valid one without its last brace.
            1 => spec[..self.random.below(spec.len())].to_vec(),
            2 => "[".repeat(1000).into_bytes(),
            3 if self.random.one_in(100) => vec![b' '; SPEC_BYTES + 1],
            _ => br#"{"process":{"args":["sh"],"cwd":"/../etc"}}"#.to_vec(),
        }
    }

    /// A well-formed request at the wrong time, or about something that does not exist.
    pub(super) fn misplaced(&mut self, stage: Stage) -> Sent {
        let other = self.other();
        let some = self.some_container();
        let world = &self.world;
        let closed = stage == Stage::Closed;
        let gate = [Code::FAILED_PRECONDITION];
        let state: &[Code] = if closed { &gate } else { &STATE };
        match self.random.below(if closed { 17 } else { 11 }) {
            0 => Sent::new(
                "StartContainer",
                &StartContainerRequest {
                    // Never for the container that waits for its start: no stage has one.
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
                    all: self.random.one_in(2),
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
                let policy = self.random.bytes(300);
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
    pub(super) fn denied(&mut self, stage: Stage) -> Sent {
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
        match (self.random.below(9), stage) {
            (6, _) => Sent::new(
                "ExecExternal",
                &ExecExternalRequest {
                    exec_id: other,
                    args: vec!["/init".to_owned(), "show".to_owned()],
                    working_dir: "/".to_owned(),
                    ..Default::default()
                },
                &denied,
            ),
            (7, _) => Sent::new(
                "MountShare",
                &MountShareRequest {
                    container_id: other,
                    share: self.random.below(SHARES) as u32,
                    ..Default::default()
                },
                &denied,
            ),
            (8, _) => Sent::new(
                "AttachDisk",
                &AttachDiskRequest {
                    slot: self.random.below(SHARES) as u32,
                    ..Default::default()
                },
                &denied,
            ),
            (0, _) => {
                let mut layer = world.layer.clone();
                let at = self.random.below(layer.root_hash.len());
                layer.root_hash[at] ^= 1 << self.random.below(8);
                layer.slot = 1 + self.random.below(100) as u32;
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
                    signal: 1 + self.random.below(64) as u32,
                    all: self.random.one_in(2),
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
                    slot: 1 + self.random.below(100) as u32,
                    ..Default::default()
                },
                &either,
            ),
        }
    }
}
