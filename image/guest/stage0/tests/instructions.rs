//! The program's instructions: under SNP, one that the processor hands to an interrupt handler (CPUID, port or MSR accesses) would
//! end the guest, and so would one of SSE that the compiler chose. Each special instruction is in the function that it belongs to.

use std::{collections::BTreeSet, path::Path, process::Command};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build.sh");
/// Bytes of the program at most.
const LIMIT: u64 = 24 << 10;

/// What a compiler makes of integer code.
const GENERAL: &[&str] = &[
    "adc", "add", "and", "bsf", "bsr", "bswap", "bt", "btc", "btr", "bts", "call", "cbw", "cdq", "cdqe", "clc", "cld", "cmp", "cqo", "cwd",
    "cwde", "dec", "div", "idiv", "imul", "inc", "int3", "leave", "lea", "mov", "movabs", "movs", "movsx", "movsxd", "movzx", "mul", "neg",
    "nop", "nopw", "nopl", "not", "or", "pop", "push", "ret", "rol", "ror", "sar", "sbb", "shl", "shld", "shr", "shrd", "stc", "stos",
    "sub", "test", "ud2", "xadd", "xchg", "xor",
];

/// Which other instructions a function may have; under SNP `terminate_plain` is never called (main.rs).
const SPECIAL: &[(&str, &[&str])] = &[
    ("start_kernel", &["lgdt", "retf", "retfq", "rex.W"]),
    ("terminate_plain", &["out", "hlt"]),
    ("terminate_encrypted", &["wrmsr", "vmgexit", "vmmcall"]),
    ("accept", &["pvalidate"]),
    (
        "stage0_sha_ni",
        &[
            "movdqa",
            "movdqu",
            "paddd",
            "palignr",
            "pblendw",
            "pshufb",
            "pshufd",
            "sha256msg1",
            "sha256msg2",
            "sha256rnds2",
        ],
    ),
];

/// Function, mnemonic and operands of every instruction.
fn instructions(elf: &Path) -> Vec<[String; 3]> {
    let output = Command::new("objdump")
        .args(["-d", "-C", "-M", "intel", "--no-show-raw-insn"])
        .arg(elf)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut function, mut found) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once('<')) {
            function = name.to_owned();
        } else if let Some((_, instruction)) = line.split_once(":\t") {
            let words: Vec<&str> = instruction.split_whitespace().collect();
            let prefixes = ["rep", "repz", "repnz", "cs", "data16", "bnd"];
            let at = words.iter().position(|word| !prefixes.contains(word)).unwrap();
            found.push([function.clone(), words[at].to_owned(), words[at + 1..].join(" ")]);
        }
    }
    assert!(found.len() > 1000, "objdump shows {} instructions", found.len());
    found
}

/// What is wrong with an instruction.
fn fault([function, mnemonic, operands]: &[String; 3]) -> Option<String> {
    let is_general = GENERAL.contains(&mnemonic.as_str()) || ["j", "set", "cmov"].iter().any(|start| mnemonic.starts_with(start));
    let last = function.rsplit("::").find(|part| !is_hash(part)).unwrap_or(function);
    let special = SPECIAL
        .iter()
        .any(|(name, mnemonics)| last == *name && mnemonics.contains(&mnemonic.as_str()));
    let vector = ["xmm", "ymm", "zmm", "mm0", "st("]
        .iter()
        .any(|register| operands.contains(register));
    let bad = if special { false } else { !is_general || vector };
    bad.then(|| format!("{function}: {mnemonic} {operands}"))
}

/// The last part of a legacy name: `h` and 16 hex digits.
fn is_hash(part: &str) -> bool {
    part.len() == 17 && part.starts_with('h') && part[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn every_instruction_can_be_executed_under_snp() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stage0");
    let status = Command::new(SCRIPT).arg(&program).status().unwrap();
    assert!(status.success());
    let bytes = std::fs::metadata(&program).unwrap().len();
    println!("stage0 has {bytes} bytes");
    assert!(bytes <= LIMIT, "{bytes} bytes");
    let all = instructions(&program.with_extension("elf"));
    let faults: Vec<String> = all.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let seen: BTreeSet<&str> = all.iter().map(|[_, mnemonic, _]| mnemonic.as_str()).collect();
    for expected in ["pvalidate", "sha256rnds2", "out", "wrmsr", "lgdt"] {
        assert!(seen.contains(expected), "no {expected}: the test sees less than the program");
    }
    let boot: Vec<&str> = all
        .iter()
        .filter(|[function, ..]| function == "_start")
        .map(|[_, mnemonic, _]| mnemonic.as_str())
        .collect();
    assert!(boot.len() <= 30, "{boot:?}");
}

#[test]
fn an_instruction_out_of_place_is_found() {
    let found = |function: &str, mnemonic: &str, operands: &str| fault(&[function, mnemonic, operands].map(str::to_owned)).is_some();
    for mnemonic in [
        "cpuid",
        "in",
        "out",
        "rdmsr",
        "wrmsr",
        "rdtsc",
        "xgetbv",
        "wbinvd",
        "hlt",
        "vmmcall",
        "pvalidate",
        "pxor",
        "fld",
    ] {
        assert!(found("stage0_main", mnemonic, ""), "{mnemonic}");
    }
    assert!(found("stage0_main", "mov", "xmm0,rax") && !found("stage0_main", "mov", "rax,rbx"));
    assert!(found("stage0_sha_ni", "cpuid", "") && !found("stage0_sha_ni", "paddd", "xmm0,xmm1"));
    assert!(!found(
        "stage0::program::terminate::terminate_plain::h0123456789abcdef",
        "out",
        "dx,al"
    ));
    assert!(found(
        "stage0::program::terminate::terminate_encrypted::h0123456789abcdef",
        "out",
        "dx,al"
    ));
}
