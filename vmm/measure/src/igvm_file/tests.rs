//! Files read back with the crate of the format: the launch in them is the plan's.

use super::*;
use crate::id_block::{IdAuth, IdBlock};
use boot_manifest::{BootPage, LoadMap, Manifest, Mode};
use igvm::IsolationType;
use p384::ecdsa::SigningKey;
use vm_spec::{LaunchPlan, Stage0, Vcpus};
use zerocopy::IntoBytes;

const POLICY: u64 = 0x3_0000;

fn plan(vcpus: u8) -> Vec<Page> {
    let boot_page = BootPage {
        manifest: Manifest {
            mode: Mode::Snp,
            kernel_sha256: [1; 32],
            initrd_sha256: [2; 32],
        },
        load: LoadMap::SMALLEST,
        cmdline: "quiet",
    };
    let stage0 = Stage0::try_from(&[0x90; 5000][..]).unwrap();
    LaunchPlan::verified(Vcpus::try_from(vcpus).unwrap(), &boot_page, stage0)
        .unwrap()
        .pages
}

fn read(file: &[u8]) -> IgvmFile {
    IgvmFile::new_from_binary(file, Some(IsolationType::Snp)).unwrap()
}

/// What a loader launches, as QEMU's `qigvm_process_mem_region` and `sev_set_cpu_context` do it, with pages without contents as `empty`.
fn loaded(file: &IgvmFile, empty: PageKind) -> LaunchDigest {
    let mut launch = Measurement::default();
    let mut vcpus = 0;
    for directive in file.directives() {
        let (kind, gpa, bytes) = match directive {
            IgvmDirectiveHeader::PageData {
                gpa,
                flags,
                data_type,
                data,
                ..
            } => {
                assert!(!flags.shared() && !flags.unmeasured());
                let kind = match *data_type {
                    IgvmPageDataType::NORMAL if data.is_empty() => empty,
                    IgvmPageDataType::NORMAL => PageKind::Normal,
                    IgvmPageDataType::SECRETS => PageKind::Secrets,
                    IgvmPageDataType::CPUID_DATA => PageKind::Cpuid,
                    other => panic!("{other:?}"),
                };
                (kind, *gpa, data.as_slice())
            }
            IgvmDirectiveHeader::SnpVpContext { gpa, vp_index, vmsa, .. } => {
                assert_eq!(*vp_index, vcpus);
                vcpus += 1;
                (PageKind::Vmsa, *gpa, vmsa.as_bytes())
            }
            IgvmDirectiveHeader::SnpIdBlock { .. } => continue,
            other => panic!("{other}"),
        };
        let mut page = [0; 4096];
        page[..bytes.len()].copy_from_slice(bytes);
        launch.add(kind, gpa, &page).unwrap();
    }
    launch.digest()
}

#[test]
fn the_digest_of_the_file_is_that_of_the_plan() {
    for vcpus in [1, 4, 64] {
        let pages = plan(vcpus);
        let file = read(&igvm_file(&pages, POLICY, None).unwrap());
        assert_eq!(loaded(&file, PageKind::Zero), measure(&pages).unwrap());
        assert_eq!(loaded(&file, PageKind::Normal), measure_igvm(&pages).unwrap());
        assert_ne!(measure(&pages), measure_igvm(&pages));
        assert_eq!(file.directives().len(), pages.len());
        let policy = IgvmInitializationHeader::GuestPolicy {
            policy: POLICY,
            compatibility_mask: SNP,
        };
        assert_eq!(file.initializations(), [policy]);
    }
    assert_eq!(
        igvm_file(&plan(2), POLICY, None).unwrap(),
        igvm_file(&plan(2), POLICY, None).unwrap()
    );
}

#[test]
fn an_id_block_of_this_launch_is_in_the_file() {
    let pages = plan(1);
    let block = IdBlock {
        digest: measure(&pages).unwrap(),
        family_id: [3; 16],
        image_id: [4; 16],
        guest_svn: 5,
        policy: POLICY,
    };
    let key = |byte| SigningKey::from_slice(&[byte; 48]).unwrap();
    for author in [None, Some(&key(7))] {
        let auth = IdAuth::sign(&block, &key(6), author);
        let signed = SignedId {
            block: &block.to_bytes(),
            authentication: &auth.to_bytes(),
        };
        let file = read(&igvm_file(&pages, POLICY, Some(signed)).unwrap());
        assert_eq!(loaded(&file, PageKind::Zero), block.digest);
        let Some(IgvmDirectiveHeader::SnpIdBlock {
            author_key_enabled,
            ld,
            guest_svn,
            id_key_signature,
            id_public_key,
            author_key_signature,
            author_public_key,
            ..
        }) = file.directives().last()
        else {
            panic!("no ID block");
        };
        assert_eq!(
            (*ld, *guest_svn, *author_key_enabled),
            (block.digest.0, 5, u8::from(author.is_some()))
        );
        // The same fields at the places where the firmware reads them.
        let bytes = auth.to_bytes();
        assert_eq!(bytes[64..64 + 144], *id_key_signature.as_bytes());
        assert_eq!(bytes[576..580], id_public_key.curve.to_le_bytes());
        assert_eq!(bytes[580..580 + 144], id_public_key.as_bytes()[8..]);
        assert_eq!(bytes[1664..1664 + 144], *author_key_signature.as_bytes());
        assert_eq!(bytes[2180..2180 + 144], author_public_key.as_bytes()[8..]);
    }
    for other in [
        IdBlock {
            policy: POLICY | 1,
            ..block
        },
        IdBlock {
            digest: LaunchDigest([9; 48]),
            ..block
        },
    ] {
        let signed = SignedId {
            block: &other.to_bytes(),
            authentication: &IdAuth::sign(&other, &key(6), None).to_bytes(),
        };
        assert!(matches!(igvm_file(&pages, POLICY, Some(signed)), Err(IgvmError::IdBlock { .. })));
    }
}

#[test]
fn pages_that_cannot_be_launched_are_refused() {
    let page = Page {
        gpa: 1,
        kind: PageKind::Normal,
        bytes: Box::new([0; 4096]),
    };
    assert!(matches!(igvm_file(&[page], POLICY, None), Err(IgvmError::Pages(_))));
}
