//! The boot page: the first that stage0 reads, and all that it knows of the guest that it starts.

use crate::{
    LoadMap, MANIFEST_BYTES, Manifest, ReadError, SETUP_DATA_MANIFEST,
    boot_params::{NODE_HEADER_BYTES, node_header},
    launch_area::{CMDLINE_MAX_BYTES, PAGE_BYTES},
    load_map::LOAD_MAP_BYTES,
    manifest::u32_at,
};

/// Where the load map begins.
const LOAD_MAP: usize = 256;
/// Where the command line begins in the boot page.
pub const BOOT_PAGE_CMDLINE: usize = PAGE_BYTES - CMDLINE_MAX_BYTES;

/// What the measured boot page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootPage<'a> {
    /// Mode, and what kernel and initramfs must be.
    pub manifest: Manifest,
    /// Where they are loaded.
    pub load: LoadMap,
    /// Kernel command line without its NUL.
    pub cmdline: &'a str,
}

/// Why a command line cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmdlineError {
    /// With its NUL it is longer than [`CMDLINE_MAX_BYTES`].
    Long(usize),
    /// A NUL would end it early.
    Nul,
}

impl<'a> BootPage<'a> {
    /// The layout: a `setup_data` node (next 0, so that it is the list's end) with the manifest, the load map, and the command
    /// line with its NUL in the second half; zeros between and after; little endian.
    pub fn to_bytes(&self) -> Result<[u8; PAGE_BYTES], CmdlineError> {
        let cmdline = self.cmdline.as_bytes();
        if cmdline.len() >= CMDLINE_MAX_BYTES {
            return Err(CmdlineError::Long(cmdline.len()));
        }
        if cmdline.contains(&0) {
            return Err(CmdlineError::Nul);
        }
        let mut page = [0; PAGE_BYTES];
        page[..NODE_HEADER_BYTES].copy_from_slice(&node_header(0, SETUP_DATA_MANIFEST, MANIFEST_BYTES as u32));
        page[NODE_HEADER_BYTES..NODE_HEADER_BYTES + MANIFEST_BYTES].copy_from_slice(&self.manifest.to_bytes());
        page[LOAD_MAP..LOAD_MAP + LOAD_MAP_BYTES].copy_from_slice(&self.load.to_bytes());
        page[BOOT_PAGE_CMDLINE..BOOT_PAGE_CMDLINE + cmdline.len()].copy_from_slice(cmdline);
        Ok(page)
    }

    /// Reads the layout of [`BootPage::to_bytes`], and nothing else: every byte has one meaning.
    pub fn from_bytes(page: &'a [u8; PAGE_BYTES]) -> Result<Self, ReadError> {
        let (kind, length) = (u32_at(page, 8), u32_at(page, 12));
        if kind != SETUP_DATA_MANIFEST {
            return Err(ReadError::Magic);
        }
        if length != MANIFEST_BYTES as u32 {
            return Err(ReadError::Short);
        }
        let manifest = Manifest::from_bytes(&page[NODE_HEADER_BYTES..])?;
        let load = LoadMap::from_bytes(page[LOAD_MAP..].first_chunk().ok_or(ReadError::Short)?)?;
        let text = page[BOOT_PAGE_CMDLINE..].split(|&byte| byte == 0).next().unwrap_or_default();
        let cmdline = core::str::from_utf8(text).map_err(|_| ReadError::Cmdline)?;
        let read = Self { manifest, load, cmdline };
        match read.to_bytes() {
            Ok(bytes) if bytes == *page => Ok(read),
            Ok(_) => Err(ReadError::Reserved),
            Err(_) => Err(ReadError::Cmdline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Segment};
    use proptest::prelude::*;

    const MANIFEST: Manifest = Manifest {
        mode: Mode::Snp,
        kernel_sha256: [1; 32],
        initrd_sha256: [2; 32],
    };

    fn load() -> LoadMap {
        let segment = Segment {
            address: 16 << 20,
            bytes: 9,
            memory: 10,
        };
        LoadMap::new(&[segment], 16 << 20, 3).unwrap()
    }

    fn page(cmdline: &str) -> Result<[u8; PAGE_BYTES], CmdlineError> {
        let (manifest, load) = (MANIFEST, load());
        BootPage { manifest, load, cmdline }.to_bytes()
    }

    #[test]
    fn the_longest_command_line_ends_the_page() {
        let longest = "x".repeat(CMDLINE_MAX_BYTES - 1);
        assert_eq!(BootPage::from_bytes(&page(&longest).unwrap()).unwrap().cmdline, longest);
        assert_eq!(page(&"x".repeat(CMDLINE_MAX_BYTES)), Err(CmdlineError::Long(CMDLINE_MAX_BYTES)));
        assert_eq!(page("a\0b"), Err(CmdlineError::Nul));
    }

    #[test]
    fn each_damage_has_its_error() {
        let good = page("quiet").unwrap();
        let damaged = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            BootPage::from_bytes(&bytes).map(|page| page.cmdline.len())
        };
        assert_eq!(damaged(0, 1), Err(ReadError::Reserved), "a node that follows");
        assert_eq!(damaged(8, 9), Err(ReadError::Magic));
        assert_eq!(damaged(12, 127), Err(ReadError::Short));
        assert_eq!(damaged(16, 0), Err(ReadError::Magic));
        assert_eq!(damaged(NODE_HEADER_BYTES + MANIFEST_BYTES, 1), Err(ReadError::Reserved));
        assert_eq!(damaged(LOAD_MAP, 9), Err(ReadError::Version(9)));
        assert_eq!(damaged(LOAD_MAP + 4, 0), Err(ReadError::LoadMap));
        assert_eq!(damaged(LOAD_MAP + LOAD_MAP_BYTES, 1), Err(ReadError::Reserved));
        assert_eq!(damaged(BOOT_PAGE_CMDLINE + 1, 0xff), Err(ReadError::Cmdline));
        assert_eq!(damaged(PAGE_BYTES - 1, 1), Err(ReadError::Reserved));
        let mut endless = good;
        endless[BOOT_PAGE_CMDLINE..].fill(b'x');
        assert_eq!(BootPage::from_bytes(&endless), Err(ReadError::Cmdline));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cmdline in "[ -~é]{0,900}") {
            let bytes = page(&cmdline).unwrap();
            prop_assert_eq!(BootPage::from_bytes(&bytes), Ok(BootPage { manifest: MANIFEST, load: load(), cmdline: &cmdline }));
        }

        /// What is read writes the same bytes: no two pages mean the same.
        #[test]
        fn a_changed_byte_is_refused_or_seen(at in 0..PAGE_BYTES, value: u8) {
            let mut bytes = page("quiet panic=-1").unwrap();
            bytes[at] = value;
            if let Ok(read) = BootPage::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes().unwrap(), bytes);
            }
        }
    }
}
