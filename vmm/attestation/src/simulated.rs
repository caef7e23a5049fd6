//! How a guest asks its VMM for simulated reports: a vsock stream to one port of the host, on which requests and answers take turns.
//!
//! A request is a REPORT_DATA. An answer is the report, the length of the table of certificates (32 bits, little endian), and the table.

use crate::REPORT_BYTES;

/// The host's port.
pub const REPORT_PORT: u32 = 1026;
/// Bytes of a request.
pub const REQUEST_BYTES: usize = 64;
/// Bytes of an answer before the table.
pub const ANSWER_HEADER_BYTES: usize = REPORT_BYTES + 4;
/// Longest table: the kernel of a SEV-SNP guest takes no longer one (`SEV_FW_BLOB_MAX_SIZE`).
pub const MAX_TABLE_BYTES: usize = 16 << 10;

/// The table is longer than [`MAX_TABLE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table of {0} bytes of certificates; {MAX_TABLE_BYTES} are possible")]
pub struct LongTable(pub usize);

/// An answer.
///
/// # Errors
/// The table is too long.
pub fn answer(report: &[u8; REPORT_BYTES], table: &[u8]) -> Result<Vec<u8>, LongTable> {
    let length = length(table.len())?;
    Ok([report, &(length as u32).to_le_bytes()[..], table].concat())
}

/// The report of an answer's header, and the length of the table that follows.
///
/// # Errors
/// The table is too long.
pub fn parse_header(header: &[u8; ANSWER_HEADER_BYTES]) -> Result<([u8; REPORT_BYTES], usize), LongTable> {
    let (mut report, mut number) = ([0; REPORT_BYTES], [0; 4]);
    report.copy_from_slice(&header[..REPORT_BYTES]);
    number.copy_from_slice(&header[REPORT_BYTES..]);
    Ok((report, length(u32::from_le_bytes(number) as usize)?))
}

fn length(bytes: usize) -> Result<usize, LongTable> {
    if bytes <= MAX_TABLE_BYTES {
        Ok(bytes)
    } else {
        Err(LongTable(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_read() {
        let answer = answer(&[5; REPORT_BYTES], b"table").unwrap();
        let (header, table) = answer.split_first_chunk().unwrap();
        assert_eq!(parse_header(header), Ok(([5; REPORT_BYTES], 5)));
        assert_eq!(table, b"table");
    }

    #[test]
    fn a_long_table_is_neither_sent_nor_read() {
        let long = vec![0; MAX_TABLE_BYTES + 1];
        assert_eq!(answer(&[0; REPORT_BYTES], &long), Err(LongTable(long.len())));
        assert_eq!(parse_header(&[0xff; ANSWER_HEADER_BYTES]), Err(LongTable(u32::MAX as usize)));
    }
}
