//! GUIDs of firmware structures, from their text at compile time.

/// A GUID as it is stored.
pub type Guid = [u8; 16];

/// A GUID's bytes: the first three fields little endian, the others as written.
pub const fn guid(text: &str) -> Guid {
    const TEXT_ORDER: [usize; 16] = [6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34];
    let text = text.as_bytes();
    let mut bytes = [0; 16];
    let mut n = 0;
    while n < 16 {
        let at = TEXT_ORDER[n];
        bytes[n] = digit(text[at]) << 4 | digit(text[at + 1]);
        n += 1;
    }
    bytes
}

const fn digit(character: u8) -> u8 {
    match character {
        b'0'..=b'9' => character - b'0',
        b'a'..=b'f' => character - b'a' + 10,
        _ => panic!("a GUID has lower-case hex digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_are_stored_as_edk2_stores_them() {
        let footer = guid("96b582de-1fb2-45f7-baea-a366c55a082d");
        assert_eq!(hex::encode(footer), "de82b596b21ff745baeaa366c55a082d");
    }
}
