//! A launch plan as an IGVM file, which other VMMs load and other tools measure: the same pages in the same order.
//!
//! One platform, SEV-SNP at VMPL 0 without virtual top of memory, as in the files that virtfw-igvm-tools makes for
//! QEMU: a page directive for each page, secrets and CPUID leaves left to the loader, and a VP context at the
//! firmware's address for each save area. What stage0 reads of the host is not in the file: the VMM has to provide the staging memory.
//!
//! IGVM has pages without contents, but no zero pages. Loaders differ: COCONUT's `igvmmeasure --native-zero` takes them for zero pages,
//! whose contents are not hashed, as in the plan; QEMU, OpenVMM and crate `igvm` take them for normal pages of zeros, which
//! have another digest, that of [`measure_igvm`].

use crate::digest::{LaunchDigest, MeasureError, Measurement, measure};
use crate::id_block::{
    AUTHOR_KEY, AUTHOR_KEY_ALGORITHM, BLOCK_SIGNATURE, ID_AUTH_BYTES, ID_BLOCK_BYTES, ID_KEY, ID_KEY_ALGORITHM, ID_KEY_SIGNATURE,
    NUMBER_BYTES,
};
use igvm::snp_defs::SevVmsa;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IGVM_SEV_SNP_PLATFORM_VERSION, IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY, IGVM_VHS_SNP_ID_BLOCK_SIGNATURE, IGVM_VHS_SUPPORTED_PLATFORM,
    IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType,
};
use vm_spec::{Page, PageKind};
use zerocopy::FromBytes;

/// The file's only platform.
const SNP: u32 = 1;

/// An ID block and its signatures (SNP firmware ABI, 8.18.2 and 8.18.3), as the VMM has them in files.
#[derive(Clone, Copy, Debug)]
pub struct SignedId<'a> {
    /// The block.
    pub block: &'a [u8; ID_BLOCK_BYTES],
    /// Keys and signatures.
    pub authentication: &'a [u8; ID_AUTH_BYTES],
}

/// Why a plan cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum IgvmError {
    /// No loader could launch it.
    #[error("the pages cannot be launched")]
    Pages(#[from] MeasureError),
    /// The firmware would refuse the launch.
    #[error("the ID block is for the digest {digest} and the guest policy {policy:#x}, not for this launch")]
    IdBlock {
        /// Its digest.
        digest: LaunchDigest,
        /// Its guest policy.
        policy: u64,
    },
    /// The crate that writes the format refuses it.
    #[error("the pages do not fit into an IGVM file")]
    Format(#[source] igvm::Error),
}

/// The IGVM file of a launch under a guest policy; with an ID block, loaders pass it to the firmware.
pub fn igvm_file(pages: &[Page], policy: u64, id: Option<SignedId<'_>>) -> Result<Vec<u8>, IgvmError> {
    let digests = [measure(pages)?, measure_igvm(pages)?];
    let id_block = id.map(|id| id_block(&id, &digests, policy)).transpose()?;
    let platform = IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: SNP,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: IGVM_SEV_SNP_PLATFORM_VERSION,
        shared_gpa_boundary: 0,
    });
    let policy_header = IgvmInitializationHeader::GuestPolicy {
        policy,
        compatibility_mask: SNP,
    };
    let mut vcpus = 0..;
    let mut directives = pages
        .iter()
        .map(|page| directive(page, &mut vcpus))
        .collect::<Result<Vec<_>, _>>()?;
    directives.extend(id_block);
    let file = IgvmFile::new(IgvmRevision::V1, vec![platform], vec![policy_header], directives).map_err(IgvmError::Format)?;
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).map_err(IgvmError::Format)?;
    Ok(bytes)
}

/// The digest of the file's launch by loaders that take its pages without contents for normal ones.
pub fn measure_igvm(pages: &[Page]) -> Result<LaunchDigest, MeasureError> {
    let mut measurement = Measurement::default();
    for page in pages {
        let kind = if page.kind == PageKind::Zero { PageKind::Normal } else { page.kind };
        measurement.add(kind, page.gpa, &page.bytes)?;
    }
    Ok(measurement.digest())
}

/// The directive that launches one page; each save area is the next vCPU's.
fn directive(page: &Page, vcpus: &mut impl Iterator<Item = u16>) -> Result<IgvmDirectiveHeader, IgvmError> {
    let (data_type, unmeasured) = match page.kind {
        PageKind::Normal | PageKind::Zero => (IgvmPageDataType::NORMAL, false),
        PageKind::Unmeasured => (IgvmPageDataType::NORMAL, true),
        PageKind::Secrets => (IgvmPageDataType::SECRETS, false),
        PageKind::Cpuid => (IgvmPageDataType::CPUID_DATA, false),
        PageKind::Vmsa => {
            return Ok(IgvmDirectiveHeader::SnpVpContext {
                gpa: page.gpa,
                compatibility_mask: SNP,
                vp_index: vcpus.next().unwrap_or_default(),
                vmsa: Box::new(SevVmsa::read_from_bytes(&page.bytes[..]).expect("a save area has the bytes of a page")),
            });
        }
    };
    let filled = matches!(page.kind, PageKind::Normal | PageKind::Unmeasured);
    Ok(IgvmDirectiveHeader::PageData {
        gpa: page.gpa,
        compatibility_mask: SNP,
        flags: IgvmPageDataFlags::new().with_unmeasured(unmeasured),
        data_type,
        data: if filled { page.bytes.to_vec() } else { Vec::new() },
    })
}

/// The directive of an ID block that is for one of `digests` and `policy`.
fn id_block(id: &SignedId<'_>, digests: &[LaunchDigest], policy: u64) -> Result<IgvmDirectiveHeader, IgvmError> {
    let SignedId { block, authentication } = id;
    let digest = LaunchDigest(bytes_at(*block, 0));
    let of_block = u64::from_le_bytes(bytes_at(*block, 88));
    if !digests.contains(&digest) || of_block != policy {
        return Err(IgvmError::IdBlock { digest, policy: of_block });
    }
    let word = |bytes: &[u8], at| u32::from_le_bytes(bytes_at(bytes, at));
    let signature = |at| {
        Box::new(IGVM_VHS_SNP_ID_BLOCK_SIGNATURE {
            r_comp: bytes_at(&authentication[..], at),
            s_comp: bytes_at(&authentication[..], at + NUMBER_BYTES),
        })
    };
    let key = |at| {
        Box::new(IGVM_VHS_SNP_ID_BLOCK_PUBLIC_KEY {
            curve: word(&authentication[..], at),
            reserved: 0,
            qx: bytes_at(&authentication[..], at + 4),
            qy: bytes_at(&authentication[..], at + 4 + NUMBER_BYTES),
        })
    };
    let author_key_algorithm = word(&authentication[..], AUTHOR_KEY_ALGORITHM);
    Ok(IgvmDirectiveHeader::SnpIdBlock {
        compatibility_mask: SNP,
        author_key_enabled: (author_key_algorithm != 0).into(),
        reserved: [0; 3],
        ld: digest.0,
        family_id: bytes_at(*block, 48),
        image_id: bytes_at(*block, 64),
        version: word(*block, 80),
        guest_svn: word(*block, 84),
        id_key_algorithm: word(&authentication[..], ID_KEY_ALGORITHM),
        author_key_algorithm,
        id_key_signature: signature(BLOCK_SIGNATURE),
        id_public_key: key(ID_KEY),
        author_key_signature: signature(ID_KEY_SIGNATURE),
        author_public_key: key(AUTHOR_KEY),
    })
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests;
