//! TCB_VERSION: eight bytes, whose meaning depends on the processor generation.

use crate::product::Product;
use std::fmt;

/// One security patch level of a TCB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The security processor's first mutable code, from Turin on.
    Fmc,
    /// The security processor's boot loader.
    BootLoader,
    /// The security processor's operating system.
    Tee,
    /// The SNP firmware.
    Snp,
    /// The lowest microcode level of all cores.
    Microcode,
}

impl Part {
    /// The name in messages and policy files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fmc => "fmc",
            Self::BootLoader => "boot_loader",
            Self::Tee => "tee",
            Self::Snp => "snp",
            Self::Microcode => "microcode",
        }
    }
}

impl Product {
    /// The parts of a TCB and their bytes, in the order of those.
    ///
    /// Milan, Genoa and Turin: ABI specification, table "TCB_VERSION". Venice has Turin's bytes without boot loader and microcode.
    pub fn tcb_parts(self) -> &'static [(Part, usize)] {
        match self {
            Self::Milan | Self::Genoa => &[(Part::BootLoader, 0), (Part::Tee, 1), (Part::Snp, 6), (Part::Microcode, 7)],
            Self::Turin => &[
                (Part::Fmc, 0),
                (Part::BootLoader, 1),
                (Part::Tee, 2),
                (Part::Snp, 3),
                (Part::Microcode, 7),
            ],
            Self::Venice => &[(Part::Fmc, 0), (Part::Tee, 2), (Part::Snp, 3)],
        }
    }
}

/// A TCB as in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersion(pub [u8; 8]);

impl TcbVersion {
    /// The levels of a product's parts.
    pub fn parts(self, product: Product) -> impl Iterator<Item = (Part, u8)> {
        product.tcb_parts().iter().map(move |(part, at)| (*part, self.0[*at]))
    }

    /// Whether the bytes that are no part of the product's TCB are zero.
    pub fn reserved_is_zero(self, product: Product) -> bool {
        let is_part = |index| product.tcb_parts().iter().any(|(_, at)| *at == index);
        self.0.iter().enumerate().all(|(index, byte)| *byte == 0 || is_part(index))
    }

    /// Whether no part is above that of `other`.
    pub fn at_most(self, other: Self, product: Product) -> bool {
        product.tcb_parts().iter().all(|(_, at)| self.0[*at] <= other.0[*at])
    }

    /// The parts in words: `boot_loader 3, tee 0, snp 8, microcode 115`.
    pub fn shown(self, product: Product) -> String {
        let parts: Vec<String> = self
            .parts(product)
            .map(|(part, level)| format!("{} {level}", part.name()))
            .collect();
        parts.join(", ")
    }
}

impl fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_at_their_products_bytes() {
        let tcb = TcbVersion([3, 4, 5, 6, 0, 0, 8, 9]);
        assert_eq!(tcb.shown(Product::Milan), "boot_loader 3, tee 4, snp 8, microcode 9");
        assert_eq!(tcb.shown(Product::Genoa), "boot_loader 3, tee 4, snp 8, microcode 9");
        assert_eq!(tcb.shown(Product::Turin), "fmc 3, boot_loader 4, tee 5, snp 6, microcode 9");
        assert_eq!(tcb.shown(Product::Venice), "fmc 3, tee 5, snp 6");
        assert_eq!(tcb.to_string(), "0304050600000809");
    }

    #[test]
    fn every_part_counts_and_no_other_byte() {
        for product in Product::ALL {
            let base = TcbVersion([5; 8]);
            for index in 0..8 {
                let mut higher = base;
                higher.0[index] = 6;
                let is_part = product.tcb_parts().iter().any(|(_, at)| *at == index);
                assert_eq!(higher.at_most(base, product), !is_part, "{product} {index}");
                assert!(base.at_most(higher, product));
                let mut only = TcbVersion([0; 8]);
                only.0[index] = 1;
                assert_eq!(only.reserved_is_zero(product), is_part, "{product} {index}");
            }
        }
    }
}
