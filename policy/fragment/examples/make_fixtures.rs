//! Makes the signed messages in `fixtures/`, with keys, certificates and signatures of OpenSSL, which is independent of the tested code.
//!
//! `cargo run -p policy-fragment --example make_fixtures -- policy/fragment/fixtures`. Keys are not kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::cbor::Value;
use coset::iana::Algorithm;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use sha2::{Digest, Sha256};

const REGO: &str = "package fragment\n\nsvn := \"2\"\nframework_version := \"0.5.0\"\n\ncontainers := []\n";
const CA: &str = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign\n";
const LEAF: &str = "basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n\
    extendedKeyUsage=codeSigning,1.3.6.1.4.1.311.76.59.1.2\n\
    subjectAltName=DNS:sign.example,email:a@b.example,URI:https://sign.example/x,IP:10.0.0.1,IP:2001:db8::1\n\
    1.3.6.1.4.1.57264.1.1=DER:68747470733a2f2f746f6b656e2e6578616d706c65\n";

/// Certificates in DER form, leaf first, and the leaf's key.
struct Signer {
    chain: Vec<Vec<u8>>,
    key: PathBuf,
    algorithm: Algorithm,
}

struct Workshop {
    directory: PathBuf,
}

impl Workshop {
    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.directory)
            .stderr(Stdio::piped())
            .output()
            .expect("openssl");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn key(&self, name: &str, kind: &[&str]) {
        let mut arguments = vec!["genpkey", "-out", name];
        arguments.extend(kind);
        self.openssl(&arguments);
    }

    /// A certificate `name.pem` for the key `name`, signed by `issuer` (self-signed if equal).
    fn certificate(&self, name: &str, issuer: &str, days: &str, extensions: &str, digest: &[&str]) {
        let subject = if name.ends_with("leaf") {
            "/C=US/O=Example+O=Other/CN=Test Leaf"
        } else {
            "/O=Example"
        };
        let subject = format!("{subject}/OU={}", name.trim_end_matches("leaf"));
        self.openssl(&["req", "-new", "-key", name, "-subj", &subject, "-out", "request"]);
        fs::write(self.directory.join("extensions"), extensions).expect("extensions");
        let pem = format!("{name}.pem");
        let issuer_pem = format!("{issuer}.pem");
        let mut arguments = vec![
            "x509",
            "-req",
            "-in",
            "request",
            "-days",
            days,
            "-extfile",
            "extensions",
            "-out",
            &pem,
        ];
        if name == issuer {
            arguments.extend(["-key", name]);
        } else {
            arguments.extend(["-CA", &issuer_pem, "-CAkey", issuer, "-CAcreateserial"]);
        }
        arguments.extend(digest);
        self.openssl(&arguments);
    }

    fn chain(&self, names: &[&str]) -> Vec<Vec<u8>> {
        names
            .iter()
            .map(|name| self.openssl(&["x509", "-in", &format!("{name}.pem"), "-outform", "DER"]))
            .collect()
    }

    /// Root, intermediate and leaf of one kind of key.
    fn family(&self, name: &str, kind: &[&str], digest: &[&str], algorithm: Algorithm, change: Change) -> Signer {
        let [root, middle, leaf] = ["root", "ca", "leaf"].map(|role| format!("{name}{role}"));
        for key in [&root, &middle, &leaf] {
            self.key(key, kind);
        }
        self.certificate(&root, &root, "20000", CA, digest);
        let (days, middle_extensions) = match change {
            Change::ShortLived => ("10", CA),
            Change::NoAuthority => ("20000", LEAF),
            _ => ("20000", CA),
        };
        self.certificate(&middle, &root, days, middle_extensions, digest);
        let leaf_extensions = match change {
            Change::NoSignature => "keyUsage=critical,keyEncipherment\n".to_owned(),
            Change::Critical => format!("{LEAF}1.2.3.4=critical,DER:0500\n"),
            _ => LEAF.to_owned(),
        };
        self.certificate(&leaf, &middle, "10000", &leaf_extensions, digest);
        Signer {
            chain: self.chain(&[&leaf, &middle, &root]),
            key: self.directory.join(&leaf),
            algorithm,
        }
    }

    fn signature(&self, key: &Path, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        fs::write(self.directory.join("message"), message).expect("message");
        let digest = match algorithm {
            Algorithm::ES256 | Algorithm::PS256 => "sha256",
            Algorithm::ES384 | Algorithm::PS384 => "sha384",
            _ => "sha512",
        };
        let key = key.display().to_string();
        let mut arguments = vec!["pkeyutl", "-sign", "-inkey", &key, "-rawin", "-in", "message"];
        let pss = matches!(algorithm, Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512);
        if pss {
            arguments.extend(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
        }
        if algorithm != Algorithm::EdDSA {
            arguments.extend(["-digest", digest]);
        }
        let signature = self.openssl(&arguments);
        if pss || algorithm == Algorithm::EdDSA {
            return signature;
        }
        // DER to two numbers of the width of the curve.
        p256::ecdsa::Signature::from_der(&signature)
            .map(|s| s.to_bytes().to_vec())
            .or_else(|_| p384::ecdsa::Signature::from_der(&signature).map(|s| s.to_bytes().to_vec()))
            .or_else(|_| p521::ecdsa::Signature::from_der(&signature).map(|s| s.to_bytes().to_vec()))
            .unwrap_or(signature)
    }

    fn sign(&self, signer: &Signer, what: What<'_>) -> CoseSign1 {
        let chain = signer.chain.iter().cloned().map(Value::Bytes).collect::<Vec<_>>();
        let chain = match chain.as_slice() {
            [one] => one.clone(),
            _ => Value::Array(chain),
        };
        let mut header = HeaderBuilder::new().algorithm(signer.algorithm).value(33, chain);
        if let Some(content_type) = what.content_type {
            header = header.content_type(content_type.to_owned());
        }
        header = match what.svn {
            Some(svn) => header.value(
                15,
                Value::Map(vec![
                    (Value::from(1), Value::from(what.issuer)),
                    (Value::from(2), Value::from(what.feed)),
                    (Value::from("svn"), svn),
                ]),
            ),
            None => header
                .text_value("iss".to_owned(), Value::from(what.issuer))
                .text_value("feed".to_owned(), Value::from(what.feed)),
        };
        CoseSign1Builder::new()
            .protected(header.build())
            .payload(what.payload.to_vec())
            .create_signature(&[], |message| self.signature(&signer.key, signer.algorithm, message))
            .build()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    Nothing,
    ShortLived,
    NoAuthority,
    NoSignature,
    Critical,
}

struct What<'a> {
    issuer: &'a str,
    feed: &'a str,
    svn: Option<Value>,
    content_type: Option<&'a str>,
    payload: &'a [u8],
}

fn what(issuer: &str) -> What<'_> {
    What {
        issuer,
        feed: "registry.example/fragment",
        svn: None,
        content_type: Some("application/unknown+rego"),
        payload: REGO.as_bytes(),
    }
}

fn did(signer: &Signer, conditions: &str) -> String {
    let root = signer.chain.last().expect("root");
    format!("did:x509:0:sha256:{}::{conditions}", URL_SAFE_NO_PAD.encode(Sha256::digest(root)))
}

fn main() {
    let out = PathBuf::from(std::env::args().nth(1).expect("give a directory"));
    let workshop = Workshop {
        directory: std::env::temp_dir().join(format!("fixtures-{}", std::process::id())),
    };
    fs::create_dir_all(&workshop.directory).expect("workshop");
    fs::create_dir_all(&out).expect("output");
    let write = |name: &str, message: CoseSign1| {
        fs::write(out.join(name), message.to_tagged_vec().expect("CBOR")).expect("fixture");
    };
    let ec = |curve: &'static str| vec!["-algorithm", "EC", "-pkeyopt", curve];
    let p256 = ec("ec_paramgen_curve:P-256");
    let rsa = vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", "-sha384"];
    let p384 = ec("ec_paramgen_curve:P-384");
    let p521 = ec("ec_paramgen_curve:P-521");
    let kinds: [(&str, Vec<&str>, Vec<&str>, Algorithm); 15] = [
        ("es256", p256.clone(), vec!["-sha256"], Algorithm::ES256),
        ("es384", p384.clone(), vec!["-sha384"], Algorithm::ES384),
        ("es512", p521.clone(), vec!["-sha512"], Algorithm::ES512),
        // No digest is tied to a curve, neither in COSE nor in certificates.
        ("p256-es384", p256.clone(), vec!["-sha512"], Algorithm::ES384),
        ("p256-es512", p256.clone(), vec!["-sha384"], Algorithm::ES512),
        ("p384-es256", p384.clone(), vec!["-sha512"], Algorithm::ES256),
        ("p384-es512", p384.clone(), vec!["-sha256"], Algorithm::ES512),
        ("p521-es256", p521.clone(), vec!["-sha384"], Algorithm::ES256),
        ("p521-es384", p521.clone(), vec!["-sha256"], Algorithm::ES384),
        ("ed25519", vec!["-algorithm", "ED25519"], vec![], Algorithm::EdDSA),
        ("ps256", rsa.clone(), vec!["-sha256"], Algorithm::PS256),
        ("ps384", rsa.clone(), pss.to_vec(), Algorithm::PS384),
        (
            "bad-secp256k1",
            ec("ec_paramgen_curve:secp256k1"),
            vec!["-sha256"],
            Algorithm::ES256,
        ),
        ("bad-ed448", vec!["-algorithm", "ED448"], vec![], Algorithm::EdDSA),
        (
            "bad-rsa1024",
            vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
            vec!["-sha256"],
            Algorithm::PS256,
        ),
    ];
    for (name, kind, digest, algorithm) in &kinds {
        let signer = workshop.family(name, kind, digest, *algorithm, Change::Nothing);
        write(
            &format!("{name}.cose"),
            workshop.sign(&signer, what(&did(&signer, "subject:CN:Test%20Leaf:O:Example"))),
        );
    }
    for (name, change) in [
        ("bad-expired-authority", Change::ShortLived),
        ("bad-no-authority", Change::NoAuthority),
        ("bad-leaf-usage", Change::NoSignature),
        ("bad-critical-extension", Change::Critical),
    ] {
        let signer = workshop.family(name, &p256, &["-sha256"], Algorithm::ES256, change);
        write(
            &format!("{name}.cose"),
            workshop.sign(&signer, what(&did(&signer, "subject:CN:Test%20Leaf"))),
        );
    }
    let sha1 = workshop.family("bad-sha1", &rsa, &["-sha1"], Algorithm::PS256, Change::Nothing);
    write("bad-sha1.cose", workshop.sign(&sha1, what(&did(&sha1, "subject:CN:Test%20Leaf"))));

    // One signer, many messages.
    let mut signer = workshop.family("main", &p256, &["-sha256"], Algorithm::ES256, Change::Nothing);
    for (name, condition) in [
        ("san-dns", "san:dns:sign.example"),
        ("san-email", "san:email:a%40b.example"),
        ("san-uri", "san:uri:https%3a%2f%2fsign.example%2fx"),
        ("san-ip", "san:ipaddress:10.0.0.1"),
        ("san-ip6", "san:ipaddress:2001%3adb8%3a%3a1"),
        ("eku", "eku:1.3.6.1.4.1.311.76.59.1.2"),
        ("eku-known", "eku:1.3.6.1.5.5.7.3.3"),
        ("fulcio", "fulcio-issuer:token.example"),
        (
            "many",
            "subject:CN:Test+Leaf:C:US:2.5.4.10:Other::eku:1.3.6.1.5.5.7.3.3::san:dns:sign.example",
        ),
        ("bad-did-cn", "subject:CN:Another"),
        ("bad-did-one-of-two", "subject:CN:Test%20Leaf::san:dns:other.example"),
        ("bad-did-eku", "eku:1.2.3"),
        ("bad-did-fulcio", "fulcio-issuer:other.example"),
    ] {
        write(&format!("{name}.cose"), workshop.sign(&signer, what(&did(&signer, condition))));
    }
    let issuer = did(&signer, "subject:CN:Test%20Leaf");
    let leaf_print = format!(
        "did:x509:0:sha256:{}::subject:CN:Test%20Leaf",
        URL_SAFE_NO_PAD.encode(Sha256::digest(&signer.chain[0]))
    );
    write("bad-did-leaf-fingerprint.cose", workshop.sign(&signer, what(&leaf_print)));
    write("bad-issuer.cose", workshop.sign(&signer, what("did:web:example")));
    write("bad-no-feed.cose", workshop.sign(&signer, What { feed: "", ..what(&issuer) }));
    write(
        "svn.cose",
        workshop.sign(
            &signer,
            What {
                svn: Some(Value::from(7)),
                ..what(&issuer)
            },
        ),
    );
    write(
        "bad-svn.cose",
        workshop.sign(
            &signer,
            What {
                svn: Some(Value::from("7")),
                ..what(&issuer)
            },
        ),
    );
    let rego_type = Some("application/cose-x509+rego");
    write(
        "typed.cose",
        workshop.sign(
            &signer,
            What {
                content_type: rego_type,
                ..what(&issuer)
            },
        ),
    );
    write(
        "bad-binary.cose",
        workshop.sign(
            &signer,
            What {
                payload: &[0xff, 0xfe],
                ..what(&issuer)
            },
        ),
    );
    let full = signer.chain.clone();
    for (name, chain) in [
        ("bad-single", vec![full[0].clone()]),
        ("bad-gap", vec![full[0].clone(), full[2].clone()]),
        ("bad-order", vec![full[0].clone(), full[2].clone(), full[1].clone()]),
        ("short", vec![full[0].clone(), full[1].clone()]),
    ] {
        signer.chain = chain;
        let issuer = did(&signer, "subject:CN:Test%20Leaf");
        write(&format!("{name}.cose"), workshop.sign(&signer, what(&issuer)));
    }
    signer.chain = full;

    // A ledger: its key in a trust list, and a receipt for a message.
    workshop.key("ledger", &ec("ec_paramgen_curve:P-384"));
    let point = workshop.openssl(&["pkey", "-in", "ledger", "-pubout", "-outform", "DER"]);
    let (x, y) = point[point.len() - 96..].split_at(48);
    let key = |curve: i64, kid: &[u8]| {
        Value::Map(vec![
            (Value::from(1), Value::from(2)),
            (Value::from(2), Value::from(kid)),
            (Value::from(-1), Value::from(curve)),
            (Value::from(-2), Value::from(x)),
            (Value::from(-3), Value::from(y)),
        ])
    };
    let list = |keys: Vec<Value>| {
        let set = Value::Map(vec![(Value::from(1), Value::Array(keys))]);
        let mut bytes = Vec::new();
        coset::cbor::into_writer(&Value::Map(vec![(Value::from("ledger.example"), set)]), &mut bytes).expect("CBOR");
        bytes
    };
    let trust = |payload, svn| What {
        payload,
        svn,
        content_type: None,
        ..what(&issuer)
    };
    let good = list(vec![key(9, b"odd"), key(2, b"k1")]);
    write("trust-list.cose", workshop.sign(&signer, trust(&good, Some(Value::from(3)))));
    write("bad-trust-list-svn.cose", workshop.sign(&signer, trust(&good, None)));
    let bad = list(vec![key(9, b"odd")]);
    write(
        "bad-trust-list-keys.cose",
        workshop.sign(&signer, trust(&bad, Some(Value::from(3)))),
    );

    let mut message = workshop.sign(&signer, what(&issuer));
    let digest = Sha256::digest(message.clone().to_tagged_vec().expect("CBOR"));
    let sibling = [7; 32];
    let leaf = Sha256::new()
        .chain_update([5; 32])
        .chain_update(Sha256::digest("ce:2.11"))
        .chain_update(digest)
        .finalize();
    let one = Sha256::new().chain_update(sibling).chain_update(leaf).finalize();
    let root = Sha256::new().chain_update(one).chain_update(sibling).finalize();
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let proof = Value::Map(vec![
        (
            Value::from(1),
            Value::Array(vec![bytes(&[5; 32]), Value::from("ce:2.11"), bytes(&digest)]),
        ),
        (
            Value::from(2),
            Value::Array(vec![
                Value::Array(vec![Value::Bool(true), bytes(&sibling)]),
                Value::Array(vec![Value::Bool(false), bytes(&sibling)]),
            ]),
        ),
    ]);
    let mut encoded = Vec::new();
    coset::cbor::into_writer(&proof, &mut encoded).expect("CBOR");
    let claims = Value::Map(vec![
        (Value::from(1), Value::from("ledger.example")),
        (Value::from(2), Value::from("x")),
    ]);
    let header = HeaderBuilder::new()
        .algorithm(Algorithm::ES384)
        .key_id(b"k1".to_vec())
        .value(15, claims)
        .value(395, Value::from(2));
    let proofs = Value::Map(vec![(Value::from(-1), Value::Array(vec![Value::Bytes(encoded)]))]);
    let receipt = CoseSign1Builder::new()
        .protected(header.build())
        .unprotected(HeaderBuilder::new().value(396, proofs).build())
        .create_detached_signature(&root, &[], |message| {
            workshop.signature(&workshop.directory.join("ledger"), Algorithm::ES384, message)
        })
        .build();
    let receipt = receipt.to_tagged_vec().expect("CBOR");
    message.unprotected = HeaderBuilder::new().value(394, Value::Array(vec![Value::Bytes(receipt)])).build();
    write("receipt.cose", message);

    fs::remove_dir_all(&workshop.directory).expect("workshop");
}
