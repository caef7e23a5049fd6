//! The testbed: a Debian machine (L1) with a working /dev/kvm, for hosts whose own does not boot Linux (QEMU emulates AMD SVM).
//!
//! ```text
//!  image ──► machine ──► "containerd answers" ──saved──► base snapshot        (cached: image and QEMU build)
//!                          base ──► job unpacked, images imported ──saved──► prepared snapshot   (one per run)
//!                                     prepared ──► story    prepared ──► story    …  two at a time, 0.3 s each
//! ```
//! Where the host's own KVM runs Linux, L1 is an ordinary KVM guest, booted afresh each time.
//!
//! Beside it there is a machine of [`one_program`], with a kernel of its own, for what Debian's kernels do not have.

pub mod accel;
pub mod build;
pub mod debian;
pub mod host;
pub mod images;
pub mod job;
pub mod kvm_probe;
pub mod layer_tar;
pub mod machine;
pub mod oci;
pub mod one_program;
mod qmp;
pub mod results;
pub mod shell;
pub mod snapshot;
