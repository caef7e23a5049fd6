//! Builds tars byte by byte, including ones that no tool writes.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub const BLOCK: usize = 512;

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tarball(pub Vec<u8>);

impl Tarball {
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(&header(name, b'0', content.len() as u64, ""), content)
    }

    pub fn directory(self, name: &str) -> Self {
        self.entry(&header(name, b'5', 0, ""), &[])
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(&header(name, b'2', 0, target), &[])
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(&header(name, b'1', 0, target), &[])
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let content: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.special(b'x', &content)
    }

    /// A header of a type that describes the next entry.
    pub fn special(self, flag: u8, content: &[u8]) -> Self {
        self.entry(&header("special", flag, content.len() as u64, ""), content)
    }

    pub fn entry(mut self, header: &[u8; BLOCK], content: &[u8]) -> Self {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The whole tar with its two closing blocks.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}

/// A ustar header with mode 0644 and modification time 1.
pub fn header(name: &str, flag: u8, size: u64, link: &str) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000001\0");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    sealed(block)
}

/// The header with `bytes` written at `offset` and a corrected checksum.
pub fn patched(mut block: [u8; BLOCK], offset: usize, bytes: &[u8]) -> [u8; BLOCK] {
    block[offset..offset + bytes.len()].copy_from_slice(bytes);
    sealed(block)
}

pub fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `"%d %s=%s\n"`, where the number counts itself.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..)
        .find(|length: &usize| length.to_string().len() + rest.len() == *length)
        .expect("a length");
    [length.to_string().as_bytes(), &rest].concat()
}
