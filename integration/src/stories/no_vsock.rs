//! A container cannot open AF_VSOCK, the transport between guest and host.

use crate::{
    lab::{Ended, Lab, Set},
    stories::story::{Machines, OURS, Story},
    testbed::{images::PATH, layer_tar::LayerTar, oci},
};
use anyhow::{Context, Result};

/// The story.
pub const STORY: Story = Story {
    name: "no-vsock",
    about: "a container cannot open AF_VSOCK",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: no_vsock,
};

/// A program that exits with the error number of `socket(family, SOCK_STREAM, 0)`, or with 253 (-3) if that returns descriptor 3.
fn socket_program(family: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    // mov eax, 41; mov edi, family; mov esi, 1; xor edx, edx; syscall; neg eax; mov edi, eax; mov eax, 60; syscall
    let code = [
        0xb8, 41, 0, 0, 0, 0xbf, family, 0, 0, 0, 0xbe, 1, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x05, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0,
        0x0f, 0x05,
    ];
    let size = (64 + 56 + code.len()) as u64;
    // elf(5): a header of 64 bytes, one loadable segment (56 bytes), the code.
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + 64 + 56, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

fn no_vsock(lab: &Lab) -> Result<()> {
    const IMAGE: &str = "docker.io/casemate/sockets:1";
    let mut layer = LayerTar::default();
    layer.file("vsock", 0o755, &socket_program(nix::libc::AF_VSOCK as u8))?;
    layer.file("unix", 0o755, &socket_program(nix::libc::AF_UNIX as u8))?;
    // Mount points of containerd's default spec.
    for directory in ["proc", "dev", "sys", "run", "etc"] {
        layer.directory(directory, 0o755)?;
    }
    let image = oci::Image {
        reference: IMAGE,
        layers: &[oci::Layer::from_tar(&layer.finish()?)?],
        command: &["/vsock"],
        environment: &[PATH],
    };
    let tar = "/job/sockets.tar";
    std::fs::write(tar, image.to_layout_tar()?).context("cannot write the image")?;
    Ended::of(&["ctr", "image", "import", tar])?.exits_with(0)?;
    lab.container(IMAGE).command(["/unix"]).run()?.exits_with(253)?;
    lab.container(IMAGE)
        .command(["/vsock"])
        .run()?
        .exits_with(nix::libc::EAFNOSUPPORT)?;
    lab.nothing_is_left()
}
