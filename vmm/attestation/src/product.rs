//! Processor generations with SEV-SNP: each has a root key of its own and one of three TCB layouts.

use std::fmt;

/// A processor generation, by the name that its certificates have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// EPYC 7003. The root of its endorsement keys has been extracted (arXiv 2605.12990): a report proves nothing any more.
    Milan,
    /// EPYC 9004 and 8004 (Genoa, Bergamo, Siena): one line, one root.
    Genoa,
    /// EPYC 9005.
    Turin,
    /// The generation after Turin.
    Venice,
}

/// CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP of a report of version 3 or later: extended and base parts combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpuid {
    /// Family
    pub family: u8,
    /// Model
    pub model: u8,
    /// Stepping
    pub stepping: u8,
}

impl Product {
    /// Every generation, oldest first.
    pub const ALL: [Self; 4] = [Self::Milan, Self::Genoa, Self::Turin, Self::Venice];

    /// The generation of a processor. Source: the ranges that AMD's own library (`virtee/sev`, `Generation::identify_cpu`) has.
    pub fn of(cpuid: Cpuid) -> Option<Self> {
        match (cpuid.family, cpuid.model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            (0x1a, 0x50..=0x57 | 0x90..=0xaf | 0xc0..=0xc7) => Some(Self::Venice),
            _ => None,
        }
    }

    /// The generation of a certificate's product name, without its stepping (`Milan-B0` has one, `Turin` has none).
    pub fn named(name: &str) -> Option<Self> {
        let line = name.split_once('-').map_or(name, |(line, _)| line);
        Self::ALL.into_iter().find(|product| product.name() == line)
    }

    /// The name in certificates: `Milan`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
            Self::Venice => "Venice",
        }
    }

    /// Bytes of CHIP_ID that identify the chip: the whole field, from Turin on its first 8 bytes (the others are zero).
    pub fn chip_id_bytes(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin | Self::Venice => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_names_have_their_product() {
        let of = |family, model| {
            Product::of(Cpuid {
                family,
                model,
                stepping: 1,
            })
        };
        assert_eq!(of(0x19, 0x01), Some(Product::Milan));
        assert_eq!(of(0x19, 0x11), Some(Product::Genoa));
        assert_eq!(of(0x19, 0xa0), Some(Product::Genoa));
        assert_eq!(of(0x1a, 0x11), Some(Product::Turin));
        assert_eq!(of(0x1a, 0x50), Some(Product::Venice));
        for (family, model) in [(0, 0), (0x17, 0x31), (0x19, 0x20), (0x1a, 0x12), (0x1a, 0x58), (0x1b, 0)] {
            assert_eq!(of(family, model), None, "{family:x} {model:x}");
        }
        assert_eq!(Product::named("Milan-B0"), Some(Product::Milan));
        assert_eq!(Product::named("Turin"), Some(Product::Turin));
        assert_eq!(Product::named("Rome"), None);
        assert_eq!(Product::named("Turinx"), None);
    }
}
