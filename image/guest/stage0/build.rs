//! The program is linked at its address in the guest.

fn main() {
    println!("cargo:rerun-if-changed=stage0.ld");
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{directory}/stage0.ld");
        println!("cargo:rustc-link-arg-bins=--no-pie");
    }
}
