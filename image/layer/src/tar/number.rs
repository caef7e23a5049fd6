//! Numbers and times in tar headers and pax records.

use crate::time::Time;

/// A header field: octal digits between blanks and NULs, or base-256 when the first bit is set (GNU, star).
pub(super) fn parse_numeric(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => parse_base256(field, first & 0x40 != 0),
        _ => parse_octal(field),
    }
}

/// Two's complement, big-endian; the first bit marks the encoding and is not the sign.
fn parse_base256(field: &[u8], negative: bool) -> Option<i64> {
    let invert = if negative { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (index, byte) in field.iter().enumerate() {
        let byte = byte ^ invert;
        let byte = if index == 0 { byte & 0x7f } else { byte };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

pub(super) fn parse_octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let Some(first) = field.iter().position(|byte| !blank(byte)) else {
        return Some(0);
    };
    let mut value: u64 = 0;
    let mut rest = field[first..].iter().peekable();
    while let Some(digit @ b'0'..=b'7') = rest.peek() {
        value = value.checked_mul(8)? + u64::from(*digit - b'0');
        rest.next();
    }
    // After the digits, a NUL ends the field whatever follows; blanks must fill the rest.
    let rest: Vec<u8> = rest.copied().collect();
    let ended = rest.first() == Some(&0) || rest.iter().all(blank);
    ended.then_some(value as i64)
}

/// A decimal number in a pax record.
pub(super) fn parse_decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, of which the first nine digits are used (POSIX pax, "mtime").
pub(super) fn parse_time(text: &[u8]) -> Option<Time> {
    let dot = text.iter().position(|byte| *byte == b'.');
    let (seconds, fraction) = dot.map_or((text, [].as_slice()), |dot| (&text[..dot], &text[dot + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..9).fold(0, |value, place| {
        value * 10 + i64::from(fraction.get(place).map_or(0, |digit| digit - b'0'))
    });
    let sign = if seconds.first() == Some(&b'-') { -1 } else { 1 };
    Some(Time::new(parse_decimal(seconds)?, sign * nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields() {
        for (field, value) in [
            (b"0000644\0".as_slice(), Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0 7\0\0", Some(7)),
            (b"        ", Some(0)),
            (b"", Some(0)),
            (b"7\0garbage", Some(7)),
            (b"12 3", None),
            (b"8", None),
            (b"-1", None),
            (b"7777777777777777777777", None),
            (b"1777777777777777777777", Some(-1)),
        ] {
            assert_eq!(parse_numeric(field), value, "{:?}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn base_256_fields() {
        for (field, value) in [
            (b"\x80\0\0\0\0\0\0\x01".as_slice(), Some(1)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ] {
            assert_eq!(parse_numeric(field), value, "{field:x?}");
        }
    }

    #[test]
    fn pax_times() {
        for (text, time) in [
            ("1", Some(Time::new(1, 0))),
            ("1.5", Some(Time::new(1, 500_000_000))),
            ("1.0000000019", Some(Time::new(1, 1))),
            ("-1.25", Some(Time::new(-2, 750_000_000))),
            ("-0.5", Some(Time::new(-1, 500_000_000))),
            ("5.", Some(Time::new(5, 0))),
            (".5", None),
            ("1.x", None),
            ("", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), time, "{text}");
        }
    }
}
