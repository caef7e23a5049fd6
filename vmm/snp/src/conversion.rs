//! Memory that the running guest makes shared or private again: requests are checked against its RAM before anything is done.

use kvm_bindings::KVM_MEMORY_EXIT_FLAG_PRIVATE;
use vm_spec::layout::{GpaRange, PAGE_BYTES};

/// `KVM_HC_MAP_GPA_RANGE` (Linux `Documentation/virt/kvm/x86/hypercalls.rst`).
pub const MAP_GPA_RANGE: u64 = 12;
/// `KVM_MAP_GPA_RANGE_ENCRYPTED`.
const ENCRYPTED: u64 = 1 << 4;
/// `KVM_MAP_GPA_RANGE_PAGE_SZ_*`: a hint.
const PAGE_SIZE: u64 = 0xf;

/// Most bytes of one request. KVM allocates for each page of it, and the vCPU cannot be stopped meanwhile. Linux asks for less: its
/// bounce buffers have 1 GiB at most.
const BYTES_MAX: u64 = 1 << 30;
/// Bytes of a piece: a whole number of pages, and of huge ones.
const PIECE_BYTES: u64 = 32 << 20;

/// Who can read a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// The guest alone; backed by the guest_memfd.
    Private,
    /// Guest and host; backed by the VMM's own mapping.
    Shared,
}

/// A checked request: whole pages, all of them RAM of one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    range: GpaRange,
    to: Visibility,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Inside a page, empty, or past the end of the address space.
    #[error("{bytes:#x} bytes from {start:#x} are not whole pages")]
    Range {
        /// First address.
        start: u64,
        /// Length.
        bytes: u64,
    },
    /// More than [`BYTES_MAX`].
    #[error("{0:#x} bytes at once; {BYTES_MAX:#x} are possible")]
    TooLong(u64),
    /// Not RAM, or RAM of two regions.
    #[error("the guest has no memory from {:#x} to {:#x}", .0.start, .0.end())]
    NotRam(GpaRange),
    /// Bits that this VMM does not know.
    #[error("unknown attributes {0:#x}")]
    Attributes(u64),
}

impl Conversion {
    /// Of `KVM_HC_MAP_GPA_RANGE`: address, number of 4 KiB pages, attributes.
    pub fn from_hypercall([start, pages, attributes]: [u64; 3], ram: &[GpaRange]) -> Result<Self, ConversionError> {
        if attributes & !(ENCRYPTED | PAGE_SIZE) != 0 {
            return Err(ConversionError::Attributes(attributes));
        }
        let bytes = pages
            .checked_mul(PAGE_BYTES)
            .ok_or(ConversionError::Range { start, bytes: u64::MAX })?;
        let to = if attributes & ENCRYPTED == 0 {
            Visibility::Shared
        } else {
            Visibility::Private
        };
        Self::new(start, bytes, to, ram)
    }

    /// Of `KVM_EXIT_MEMORY_FAULT`: the guest's access says what the memory is to be.
    pub fn from_memory_fault(flags: u64, start: u64, bytes: u64, ram: &[GpaRange]) -> Result<Self, ConversionError> {
        let private = u64::from(KVM_MEMORY_EXIT_FLAG_PRIVATE);
        let to = match flags {
            0 => Visibility::Shared,
            flags if flags == private => Visibility::Private,
            flags => return Err(ConversionError::Attributes(flags)),
        };
        Self::new(start, bytes, to, ram)
    }

    fn new(start: u64, bytes: u64, to: Visibility, ram: &[GpaRange]) -> Result<Self, ConversionError> {
        let whole = start.is_multiple_of(PAGE_BYTES) && bytes.is_multiple_of(PAGE_BYTES) && bytes > 0;
        if !whole || start.checked_add(bytes).is_none() {
            return Err(ConversionError::Range { start, bytes });
        }
        let range = GpaRange { start, length: bytes };
        if !ram.iter().any(|ram| ram.contains(range)) {
            return Err(ConversionError::NotRam(range));
        }
        if bytes > BYTES_MAX {
            return Err(ConversionError::TooLong(bytes));
        }
        Ok(Self { range, to })
    }

    /// The same in pieces of at most [`PIECE_BYTES`], in the order of addresses: between two of them other vCPUs have their turn.
    pub fn pieces(self) -> impl Iterator<Item = Self> {
        let Self { range, to } = self;
        (0..range.length).step_by(PIECE_BYTES as usize).map(move |offset| {
            let (start, length) = (range.start + offset, (range.length - offset).min(PIECE_BYTES));
            let range = GpaRange { start, length };
            Self { range, to }
        })
    }
}

/// Guest memory behind both views. Attributes are VM-wide (`KVM_SET_MEMORY_ATTRIBUTES`) or the guest_memfd's own
/// (`KVM_SET_MEMORY_ATTRIBUTES2`), whichever the host has.
pub trait Backing {
    /// Why a call failed.
    type Error;
    /// Says who can read the range from now on.
    fn set_attributes(&mut self, range: GpaRange, to: Visibility) -> Result<(), Self::Error>;
    /// Gives the pages of the view that nobody reads any more back to the host.
    fn discard(&mut self, range: GpaRange, unused: Visibility) -> Result<(), Self::Error>;
}

/// Does what a request says. Attributes come first: pages of a view are only given back once the guest cannot reach them.
pub fn convert<B: Backing>(conversion: Conversion, backing: &mut B) -> Result<(), B::Error> {
    let Conversion { range, to } = conversion;
    backing.set_attributes(range, to)?;
    let unused = match to {
        Visibility::Private => Visibility::Shared,
        Visibility::Shared => Visibility::Private,
    };
    backing.discard(range, unused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const RAM: [GpaRange; 2] = [
        GpaRange {
            start: 0,
            length: 64 * MIB,
        },
        GpaRange {
            start: 1 << 32,
            length: 16 * MIB,
        },
    ];

    #[derive(Default)]
    struct Recorder(Vec<(&'static str, GpaRange, Visibility)>);

    impl Backing for Recorder {
        type Error = ();
        fn set_attributes(&mut self, range: GpaRange, to: Visibility) -> Result<(), ()> {
            self.0.push(("set", range, to));
            Ok(())
        }
        fn discard(&mut self, range: GpaRange, unused: Visibility) -> Result<(), ()> {
            self.0.push(("discard", range, unused));
            Ok(())
        }
    }

    #[test]
    fn the_view_that_is_left_is_discarded_after_the_attributes() {
        let range = GpaRange {
            start: MIB,
            length: 2 * PAGE_BYTES,
        };
        let mut recorder = Recorder::default();
        for attributes in [0, ENCRYPTED | 1] {
            let request = Conversion::from_hypercall([MIB, 2, attributes], &RAM).unwrap();
            convert(request, &mut recorder).unwrap();
        }
        assert_eq!(
            recorder.0,
            [
                ("set", range, Visibility::Shared),
                ("discard", range, Visibility::Private),
                ("set", range, Visibility::Private),
                ("discard", range, Visibility::Shared),
            ]
        );
    }

    #[test]
    fn what_is_not_ram_of_one_region_is_refused() {
        let end = 64 * MIB;
        for (start, pages) in [
            (end - PAGE_BYTES, 2),
            (end, 1),
            (1, 1),
            (0, 0),
            (u64::MAX - 4095, 1),
            (0, u64::MAX),
            (0, 1 << 52),
        ] {
            assert!(
                Conversion::from_hypercall([start, pages, 0], &RAM).is_err(),
                "{start:#x} {pages:#x}"
            );
        }
        assert_eq!(
            Conversion::from_hypercall([0, 1, 1 << 5], &RAM),
            Err(ConversionError::Attributes(1 << 5))
        );
        assert_eq!(Conversion::from_memory_fault(9, 0, 4096, &RAM), Err(ConversionError::Attributes(9)));
        assert!(Conversion::from_memory_fault(8, 1 << 32, 16 * MIB, &RAM).is_ok());
        let large = [GpaRange { start: 0, length: 2 << 30 }];
        let pages = BYTES_MAX / PAGE_BYTES;
        assert!(Conversion::from_hypercall([0, pages, 0], &large).is_ok());
        assert_eq!(
            Conversion::from_hypercall([0, pages + 1, 0], &large),
            Err(ConversionError::TooLong(BYTES_MAX + PAGE_BYTES))
        );
    }

    #[test]
    fn pieces_are_the_whole_once_and_in_order() {
        let page = PAGE_BYTES;
        for bytes in [page, PIECE_BYTES - page, PIECE_BYTES, PIECE_BYTES + page, 64 * MIB] {
            let whole = Conversion::new(0, bytes, Visibility::Shared, &RAM).unwrap();
            let mut next = 0;
            for piece in whole.pieces() {
                assert!(piece.to == whole.to && piece.range.start == next && (page..=PIECE_BYTES).contains(&piece.range.length));
                next = piece.range.end();
            }
            assert_eq!(next, bytes);
        }
    }

    proptest! {
        #[test]
        fn an_accepted_request_is_inside_ram(start in any::<u64>(), pages in any::<u64>(), attributes in 0u64..64, close in any::<bool>()) {
            let start = if close { (start % (5 << 30)) & !4095 } else { start };
            let pages = if close { pages % 32768 } else { pages };
            if let Ok(Conversion { range, .. }) = Conversion::from_hypercall([start, pages, attributes], &RAM) {
                prop_assert_eq!((range.start, range.length), (start, pages * PAGE_BYTES));
                prop_assert!(RAM.iter().any(|ram| ram.start <= start && start + range.length <= ram.start + ram.length));
            }
        }
    }
}
