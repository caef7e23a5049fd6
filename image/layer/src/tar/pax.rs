//! Records of a pax extended header (POSIX pax, "pax Header Block"), with GNU's sparse records and star's attributes.

use super::number::{parse_decimal, parse_time};
use super::sparse::{Fragment, fragment_pairs};
use super::{Entry, HeaderError};
use std::collections::BTreeMap;

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_BYTES: &[u8] = b"GNU.sparse.numbytes";
const SPARSE_MAP: &[u8] = b"GNU.sparse.map";

/// Where the map of a sparse file is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SparseForm {
    /// GNU formats 0.0 and 0.1.
    InRecords,
    /// GNU format 1.0: the first blocks of the data.
    InData,
}

/// The records by keyword; the last one with a keyword wins.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    pub(super) fn parse(content: &[u8]) -> Result<Self, HeaderError> {
        let mut records = BTreeMap::new();
        let mut map: Vec<&[u8]> = Vec::new();
        let mut rest = content;
        while !rest.is_empty() {
            let malformed = HeaderError::PaxRecord(content.len() - rest.len());
            let Some((key, value, after)) = split_record(rest) else {
                return Err(malformed);
            };
            match (key, map.len() % 2) {
                (SPARSE_OFFSET, 0) | (SPARSE_BYTES, 1) if !value.contains(&b',') => map.push(value),
                (SPARSE_OFFSET | SPARSE_BYTES, _) => return Err(malformed),
                _ => drop(records.insert(key.to_vec(), value.to_vec())),
            }
            rest = after;
        }
        if !map.is_empty() {
            records.insert(SPARSE_MAP.to_vec(), map.join(b",".as_slice()));
        }
        Ok(Records(records))
    }

    /// Overrides the header's values with the records'. An empty record leaves the header's value.
    pub(super) fn merge(&self, entry: &mut Entry, size: &mut i64) -> Result<(), HeaderError> {
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                entry.xattrs.push((name.to_vec(), value.clone()));
            }
            if value.is_empty() {
                continue;
            }
            let number = |name| parse_decimal(value).ok_or(HeaderError::PaxValue(name));
            let time = |name| parse_time(value).map(Some).ok_or(HeaderError::PaxValue(name));
            match key.as_slice() {
                b"path" => entry.name = value.clone(),
                b"linkpath" => entry.link = value.clone(),
                b"uid" => entry.uid = number("uid")? as u32,
                b"gid" => entry.gid = number("gid")? as u32,
                b"atime" => entry.atime = time("atime")?,
                b"mtime" => entry.mtime = time("mtime")?,
                b"ctime" => entry.ctime = time("ctime")?,
                b"size" => *size = number("size")?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether and how the records describe a sparse file.
    pub(super) fn sparse_form(&self) -> Option<SparseForm> {
        match (self.value(b"GNU.sparse.major"), self.value(b"GNU.sparse.minor")) {
            (b"0", b"0" | b"1") => Some(SparseForm::InRecords),
            (b"1", b"0") => Some(SparseForm::InData),
            (b"", b"") if !self.value(SPARSE_MAP).is_empty() => Some(SparseForm::InRecords),
            _ => None,
        }
    }

    /// Name and real size of a sparse file.
    pub(super) fn merge_sparse(&self, entry: &mut Entry, size: &mut i64) -> Result<(), HeaderError> {
        let name = self.value(b"GNU.sparse.name");
        if !name.is_empty() {
            entry.name = name.to_vec();
        }
        for key in [b"GNU.sparse.size".as_slice(), b"GNU.sparse.realsize"] {
            let value = self.value(key);
            if !value.is_empty() {
                *size = parse_decimal(value).ok_or(HeaderError::PaxValue("GNU.sparse.size"))?;
                break;
            }
        }
        Ok(())
    }

    /// The map of formats 0.0 and 0.1.
    pub(super) fn sparse_map(&self) -> Result<Vec<Fragment>, HeaderError> {
        let count = parse_decimal(self.value(b"GNU.sparse.numblocks")).and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or(HeaderError::PaxValue("GNU.sparse.numblocks"))?;
        let map = self.value(SPARSE_MAP);
        let numbers: Vec<&[u8]> = if map.is_empty() {
            Vec::new()
        } else {
            map.split(|byte| *byte == b',').collect()
        };
        if count.checked_mul(2) != Some(numbers.len()) {
            return Err(HeaderError::SparseMap);
        }
        fragment_pairs(numbers.into_iter())
    }

    fn value(&self, key: &[u8]) -> &[u8] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Takes `"%d %s=%s\n"` off the front; the number counts the whole record.
fn split_record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(parse_decimal(&content[..space])?).ok()?;
    if length < space + 2 || length > content.len() {
        return None;
    }
    let (record, rest) = content.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let holds_nul = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value.contains(&0),
        _ => key.contains(&0),
    };
    (!key.is_empty() && !holds_nul).then_some((key, value, rest))
}
