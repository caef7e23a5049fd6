//! Names of the bits of PLATFORM_INFO.

/// Bits with their names in requirements files (ABI specification, table "PLATFORM_INFO Field").
const BITS: [(&str, u32); 8] = [
    ("smt", 0),
    ("tsme", 1),
    ("ecc", 2),
    ("rapl-disabled", 3),
    ("ciphertext-hiding", 4),
    // No memory aliases since the last reset: the answer to CVE-2024-21944 (BadRAM).
    ("alias-check-complete", 5),
    ("iommu-write-safe", 6),
    ("tio", 7),
];

/// The bit of a name.
pub(crate) fn bit(name: &str) -> Option<u64> {
    BITS.iter().find(|(known, _)| *known == name).map(|(_, bit)| 1 << bit)
}

/// The names of bits; those without a name by number.
pub(crate) fn shown(bits: u64) -> String {
    let set = (0..u64::BITS).filter(|bit| bits & (1 << bit) != 0);
    let names: Vec<String> = set
        .map(|bit| {
            let known = BITS.iter().find(|(_, known)| *known == bit);
            known.map_or_else(|| format!("bit {bit}"), |(name, _)| (*name).to_owned())
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names() {
        assert_eq!(bit("ecc"), Some(4));
        assert_eq!(bit("ECC"), None);
        assert_eq!(shown(0), "none");
        assert_eq!(shown(0b1010_0101 | 1 << 40), "smt, ecc, alias-check-complete, tio, bit 40");
    }
}
