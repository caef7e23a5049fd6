//! An ID block with its signatures, a table of certificates, a guest policy, and what a guest asks for: of any bytes.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use snp_launch::{Answer, CertificateTable, Conversion, GuestPolicy, ID_AUTHENTICATION_BYTES, ID_BLOCK_BYTES, SignedId};
use vm_spec::layout::GpaRange;

const RAM: [GpaRange; 2] = [
    GpaRange { start: 0, length: 3 << 30 },
    GpaRange {
        start: 4 << 30,
        length: 1 << 30,
    },
];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let policy = input.arbitrary::<u64>().ok().and_then(|bits| GuestPolicy::try_from(bits).ok());
    let (block, authentication) = bytes.split_at(bytes.len().min(ID_BLOCK_BYTES));
    // Inputs are shorter than the structure; zeros follow, to its length, one byte more, or one or two less.
    let mut authentication = authentication.to_vec();
    authentication.resize(ID_AUTHENTICATION_BYTES - 2 + bytes.len() % 4, 0);
    if let Ok(id) = SignedId::parse(block, &authentication, policy.unwrap_or_default()) {
        assert_eq!((block.len(), authentication.len()), (ID_BLOCK_BYTES, ID_AUTHENTICATION_BYTES));
        assert_eq!(id.files().block[..], *block);
    }
    let (Ok(start), Ok(pages), Ok(attributes)) = (input.arbitrary::<u64>(), input.arbitrary::<u64>(), input.arbitrary::<u64>()) else {
        return;
    };
    if let Ok(table) = CertificateTable::try_from(input.take_rest().to_vec())
        && let Answer::Write(range) = table.answer(start, pages, &RAM)
    {
        assert!(RAM.iter().any(|ram| ram.contains(range)));
    }
    let _ = Conversion::from_hypercall([start, pages, attributes], &RAM);
    let _ = Conversion::from_memory_fault(attributes, start, pages, &RAM);
});
