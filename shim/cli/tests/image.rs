//! `casemate image measure`: its output, and the digest of the exported plan by `sev-snp-measure`, which shares no code with ours.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod program;

/// A Python with `sev-snp-measure` (0.0.13), which `make setup` installs.
const PYTHON: &str = "CASEMATE_SEV_SNP_MEASURE_PYTHON";
/// The guest image that `make test` has built.
const IMAGE: &str = "CASEMATE_GUEST_IMAGE";
/// The programs and stage0 that it was built from.
const PROGRAMS: &str = "CASEMATE_GUEST_PROGRAMS";
const STAGE0: &str = "CASEMATE_STAGE0";
/// Page by page as the peer's own command does it for firmware images.
const SCRIPT: &str = r#"
import json, sys
from sevsnpmeasure.gctx import GCTX
gctx = GCTX()
for line in open(sys.argv[1]):
    page = json.loads(line)
    gpa, contents = int(page["gpa"], 16), bytes.fromhex(page.get("bytes", ""))
    {
        "normal": lambda: gctx.update_normal_pages(gpa, contents),
        "vmsa": lambda: gctx.update_vmsa_page(contents),
        "zero": lambda: gctx.update_zero_pages(gpa, 4096),
        "unmeasured": lambda: gctx.update_unmeasured_pages(gpa, 4096),
        "secrets": lambda: gctx.update_secrets_page(gpa),
        "cpuid": lambda: gctx.update_cpuid_page(gpa),
    }[page["type"]]()
print(gctx.ld().hex())
"#;

/// A kernel with one segment: a page of headers (ELF-64 object file format, in words of eight bytes), then its contents.
fn kernel() -> Vec<u8> {
    const START: u64 = 16 << 20;
    let identification = u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0");
    let header = [identification, 0, 2 | 62 << 16 | 1 << 32, START, 64, 0, 64 << 32 | 56 << 48, 1];
    let load = [1 | 7 << 32, 4096, START, START, 4096, 8192, 4096];
    let mut elf: Vec<u8> = header.into_iter().chain(load).flat_map(u64::to_le_bytes).collect();
    elf.resize(4096, 0);
    elf.resize(8192, 0x90);
    elf
}

/// An image whose stage0 has 20 000 bytes; returns the manifest.
fn image(directory: &Path) -> Value {
    let artifact = |name: &str, bytes: &[u8]| {
        write(directory.join(name), bytes).unwrap();
        json!({ "file": name, "sha256": hex::encode(Sha256::digest(bytes)), "bytes": bytes.len() })
    };
    let stage0: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let manifest = json!({
        "version": 1,
        "kernel": artifact("vmlinux", &kernel()),
        "initrd": artifact("initramfs.cpio", &[7; 9000]),
        "stage0": artifact("stage0", &stage0),
        "cmdline": "console=ttyS0 quiet",
        "inputs": [],
        "compiler": "",
    });
    write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    manifest
}

fn measure(directory: &Path, arguments: &[&str]) -> Output {
    program::run("image", directory, &[&["measure", "."], arguments].concat(), b"")
}

fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

#[test]
fn the_digest_is_alone_on_its_line_and_with_figures_in_json() {
    let directory = tempfile::tempdir().unwrap();
    image(directory.path());
    let plain = digest(&measure(directory.path(), &["--vcpus", "2"]));
    assert!(plain.len() == 96 && plain.bytes().all(|byte| byte.is_ascii_hexdigit()), "{plain}");
    let document: Value = serde_json::from_str(&digest(&measure(directory.path(), &["--vcpus", "2", "--json"]))).unwrap();
    let expected = json!({ "vcpus": 2, "digest": plain, "pages": 23, "hashed_bytes": 12 * 4096, "stage0_bytes": 20_000, "verified_bytes": 8192 + 9000 });
    assert_eq!(document, expected);
    assert_ne!(digest(&measure(directory.path(), &["--vcpus", "2", "--tee", "simulated"])), plain);
    assert_ne!(digest(&measure(directory.path(), &[])), plain);
}

#[test]
fn an_igvm_file_is_written_with_its_policy_and_the_digest_of_other_vmms() {
    let directory = tempfile::tempdir().unwrap();
    image(directory.path());
    let plain = digest(&measure(directory.path(), &[]));
    let export = |arguments: &[&str]| measure(directory.path(), &[&["--igvm", "guest.igvm"], arguments].concat());
    let document: Value = serde_json::from_str(&digest(&export(&["--json"]))).unwrap();
    assert_eq!(document["digest"], plain);
    assert!(
        document["igvm_digest"]
            .as_str()
            .is_some_and(|other| other.len() == 96 && other != plain)
    );
    let file = || std::fs::read(directory.path().join("guest.igvm")).unwrap();
    let first = file();
    assert_eq!(first[..4], *b"IGVM");
    assert_eq!(digest(&export(&["--guest-policy", "0x30000"])), plain);
    assert!(file() == first, "the same launch, another file");
    digest(&export(&["--guest-policy", "196609"]));
    assert!(file() != first, "the policy is not in the file");
    write(directory.path().join("block"), [0; 96]).unwrap();
    write(directory.path().join("auth"), [0; 4096]).unwrap();
    let refused = |arguments: &[&str]| {
        let output = export(arguments);
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stderr).unwrap()
    };
    let other = refused(&["--id-block", "block", "--id-auth", "auth"]);
    assert!(other.contains("the ID block is for the digest 0000"), "{other}");
    let short = refused(&["--id-block", "block", "--id-auth", "block"]);
    assert!(short.contains("block has 96 bytes; 4096 are needed"), "{short}");
}

#[test]
fn what_cannot_be_measured_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut manifest = image(directory.path());
    let refused = |arguments: &[&str]| {
        let output = measure(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty() && !directory.path().join("plan").exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let count = refused(&["--vcpus", "65", "--plan", "plan"]);
    assert!(count.contains("65"), "{count}");
    manifest.as_object_mut().unwrap().remove("stage0");
    write(directory.path().join("manifest.json"), manifest.to_string()).unwrap();
    let without = "casemate: the guest image in . has no stage0, so nothing measures it\n";
    assert_eq!(refused(&["--plan", "plan"]), without);
}

/// A Python with the peer, or why there is none.
fn peer() -> Result<OsString, String> {
    let named = std::env::var_os(PYTHON).filter(|path| !path.is_empty());
    let python = named.ok_or_else(|| format!("{PYTHON} names no Python with sev-snp-measure"))?;
    let imported = Command::new(&python).args(["-c", "import sevsnpmeasure.gctx"]).output();
    if imported.is_ok_and(|output| output.status.success()) {
        return Ok(python);
    }
    let python = Path::new(&python).display();
    Err(format!(
        "{python} has no sev-snp-measure, which `make setup` installs from pip's index"
    ))
}

/// The peer's digest of the plan of `image` is ours.
fn agrees(python: &OsStr, image: &Path, vcpus: &str) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["measure", image.to_str().unwrap(), "--vcpus", vcpus, "--plan", "plan.jsonl"];
    let ours = digest(&program::run("image", directory.path(), &arguments, b""));
    let mut peer = Command::new(python);
    peer.args(["-c", SCRIPT, "plan.jsonl"]).current_dir(directory.path());
    assert_eq!(digest(&peer.output().unwrap()), ours, "{vcpus} vCPUs");
}

#[test]
fn the_peer_computes_the_same_digest_from_the_exported_plan() {
    let python = match peer() {
        Ok(python) => python,
        Err(why) => return eprintln!("skipped: the_peer_computes_the_same_digest_from_the_exported_plan: {why}"),
    };
    let directory = tempfile::tempdir().unwrap();
    image(directory.path());
    for vcpus in ["1", "4", "64"] {
        agrees(&python, directory.path(), vcpus);
    }
}

/// The guest image that was built, or why there is none.
fn built() -> Result<PathBuf, String> {
    let built = std::env::var_os(IMAGE).map(PathBuf::from);
    let built = built.filter(|image| image.join("stage0").exists());
    built.ok_or_else(|| format!("{IMAGE} names no guest image with stage0"))
}

/// From copies of its programs in two other directories. That the programs themselves do not depend on where they are built is for
/// `make reproducible`, which builds them again.
#[test]
fn the_image_that_was_built_is_the_same_when_it_is_built_again() {
    let variables = [PROGRAMS, STAGE0].map(|name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists()));
    let (image, programs, stage0) = match (built(), variables) {
        (Ok(image), [Some(programs), Some(stage0)]) => (image, programs, stage0),
        (Err(why), _) => return eprintln!("skipped: the_image_that_was_built_is_the_same_when_it_is_built_again: {why}"),
        _ => {
            return eprintln!(
                "skipped: the_image_that_was_built_is_the_same_when_it_is_built_again: {PROGRAMS} and {STAGE0} do not name what it is made of"
            );
        }
    };
    let digests: [String; 2] = ["one", "another/one"].map(|name| {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        for program in ["casemate-agent", "casemate-launcher", "casemate-puller", "casemate-pause"] {
            std::fs::copy(programs.join(program), place.join(program)).unwrap();
        }
        std::fs::copy(&stage0, place.join("stage0")).unwrap();
        let arguments = [
            "build",
            "--programs",
            name,
            "--stage0",
            &format!("{name}/stage0"),
            "--output",
            "image",
        ];
        let digest = digest(&program::run("image", directory.path(), &arguments, b""));
        for file in ["vmlinux", "initramfs.cpio", "stage0", "manifest.json"] {
            let [ours, theirs] = [image.join(file), directory.path().join("image").join(file)].map(|path| std::fs::read(path).unwrap());
            assert!(ours == theirs, "{file} from {name}");
        }
        digest
    });
    assert_eq!(digests[0], digests[1]);
}

/// What a launch costs the firmware and stage0: a millisecond a page, and each byte copied and hashed at every start of a guest.
#[test]
fn the_image_that_was_built_is_within_its_limits() {
    let image = match built() {
        Ok(image) => image,
        Err(why) => return eprintln!("skipped: the_image_that_was_built_is_within_its_limits: {why}"),
    };
    let manifest: Value = serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    let packaged = manifest["compiler"].as_str().is_some_and(|name| name.starts_with("linux-image"));
    for vcpus in 1..=16 {
        let output = measure(&image, &["--json", "--vcpus", &vcpus.to_string()]);
        let document: Value = serde_json::from_str(&digest(&output)).unwrap();
        let figure = |name: &str| document[name].as_u64().unwrap();
        assert!(figure("pages") <= 24 + vcpus, "{document}");
        assert!(figure("stage0_bytes") <= 24 << 10, "{document}");
        // The packaged kernel has what every cloud's guests need.
        assert!(packaged || figure("verified_bytes") <= 24 << 20, "{document}");
    }
}

#[test]
fn the_peer_computes_the_same_digest_of_the_image_that_was_built() {
    match peer().and_then(|python| Ok((python, built()?))) {
        Ok((python, image)) => agrees(&python, &image, "2"),
        Err(why) => eprintln!("skipped: the_peer_computes_the_same_digest_of_the_image_that_was_built: {why}"),
    }
}
