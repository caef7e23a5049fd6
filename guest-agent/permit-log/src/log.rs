//! The log itself: recent entries in full, what is kept of older ones, and the chain over all of them.

use std::collections::VecDeque;

use crate::{
    chain::{Chain, Head, Nonce, report_data},
    entry::Entry,
    fold,
    wire::{DecodeError, Reader, Writer},
};

const MAGIC: &[u8; 20] = b"casemate permit log\x01";

/// Most recent entries, and most that are kept of older ones.
pub(crate) const ENTRIES: usize = 8192;
/// Bytes of either in their encoding.
pub(crate) const ENTRY_BYTES: usize = 512 << 10;
/// Positions before the kept entries.
const POSITION_BYTES: usize = 8;
/// More entries than any guest lives to write, so that positions can be added to.
const MOST_FOLDED: u64 = 1 << 48;
/// Magic, folded count, chain, and two counts.
const HEADER_BYTES: usize = MAGIC.len() + 8 + 48 + 4 + 4;

/// Longest encoding of a log, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = HEADER_BYTES + 2 * ENTRY_BYTES + ENTRIES * POSITION_BYTES;

/// What must be kept of the log fills it: nothing more can be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log of what was permitted is full: end this sandbox and start another")]
pub struct Full;

/// Why a log does not belong to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not even a log.
    #[error("the log cannot be read")]
    Decode(#[from] DecodeError),
    /// Another log, another nonce, or a report that binds neither.
    #[error("the report's REPORT_DATA does not bind this nonce to this log")]
    NotBound,
}

/// Everything that a guest permitted, in order.
///
/// The number of an entry is its position; folding changes no position and not the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Positions below this are folded.
    folded: u64,
    /// The chain over them.
    base: Chain,
    /// What is kept of them, by position.
    kept: Vec<(u64, Entry)>,
    kept_bytes: usize,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    chain: Chain,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            folded: 0,
            base: Chain::empty(),
            kept: Vec::new(),
            kept_bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            chain: Chain::empty(),
        }
    }
}

impl Log {
    /// Adds an entry and returns its position.
    ///
    /// If there is no room, the older half of the recent entries is folded first. Of folded entries are kept: the policy, fragments and
    /// trust lists; the last mount of each layer; the last creation of each kind of container, by layers and command, with its root file
    /// system; for each container that exists, the last entry of each kind with a container; the last entry of each kind at all; and the
    /// outcome and exit of whatever is kept. An act that failed replaces none that succeeded. So it can always be judged which layers and
    /// containers there ever were, how those that exist came to be, and when something was done last.
    ///
    /// # Errors
    /// Even what must be kept has no room. The log is as before.
    pub fn append(&mut self, entry: Entry) -> Result<u64, Full> {
        let bytes = entry.to_bytes();
        if self.recent.len() == ENTRIES || self.recent_bytes + bytes.len() > ENTRY_BYTES {
            self.fold()?;
        }
        let position = self.len();
        self.chain = self.chain.then(&bytes);
        self.recent_bytes += bytes.len();
        self.recent.push_back(entry);
        Ok(position)
    }

    /// The number of entries, folded ones included.
    pub fn len(&self) -> u64 {
        self.folded + self.recent.len() as u64
    }

    /// Whether nothing was permitted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries were folded; 0 says that the log is whole.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// The entries that are there, with their positions.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (u64, &Entry)> + Clone {
        let kept = self.kept.iter().map(|(position, entry)| (*position, entry));
        kept.chain(
            self.recent
                .iter()
                .enumerate()
                .map(|(index, entry)| (self.folded + index as u64, entry)),
        )
    }

    /// Stands for the log in a report.
    pub fn head(&self) -> Head {
        Head::new(self.len(), self.chain, self.folded, &self.kept_encoding())
    }

    /// Replaces the older half of the recent entries by what must be kept of them.
    fn fold(&mut self) -> Result<(), Full> {
        let count = self.recent.len().div_ceil(2);
        let folded = self.folded + count as u64;
        let kept = fold::kept(self.entries(), folded);
        let kept_bytes = kept.iter().map(|(_, entry)| entry.to_bytes().len()).sum();
        if kept.len() > ENTRIES || kept_bytes > ENTRY_BYTES {
            return Err(Full);
        }
        for entry in self.recent.drain(..count) {
            let bytes = entry.to_bytes();
            self.recent_bytes -= bytes.len();
            self.base = self.base.then(&bytes);
        }
        (self.folded, self.kept, self.kept_bytes) = (folded, kept, kept_bytes);
        Ok(())
    }

    fn kept_encoding(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for (position, entry) in &self.kept {
            out.bytes(&position.to_le_bytes());
            entry.write(&mut out);
        }
        out.into_bytes()
    }

    /// The only encoding of this log.
    ///
    /// Magic and version; how many entries are folded (u64) and the chain over them (48 bytes); how many are kept (u32), each with its
    /// position (u64); how many are recent (u32), and those. Little endian; an entry is its kind, its length and its fields.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(MAGIC);
        out.bytes(&self.folded.to_le_bytes());
        out.bytes(&self.base.0);
        // Both counts are at most ENTRIES.
        out.bytes(&(self.kept.len() as u32).to_le_bytes());
        out.bytes(&self.kept_encoding());
        out.bytes(&(self.recent.len() as u32).to_le_bytes());
        for entry in &self.recent {
            entry.write(&mut out);
        }
        out.into_bytes()
    }

    /// Reads the encoding of a log. What it says is proven only by [`Self::verify`].
    ///
    /// # Errors
    /// The bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(DecodeError::Size(bytes.len()));
        }
        let mut input = Reader(bytes);
        if input.array().as_ref() != Ok(MAGIC) {
            return Err(DecodeError::Magic);
        }
        let folded = u64::from_le_bytes(input.array()?);
        let base = Chain(input.array()?);
        if folded > MOST_FOLDED {
            return Err(DecodeError::TooMany("folded entries"));
        }
        if folded == 0 && base != Chain::empty() {
            return Err(DecodeError::Value("chain over no entry"));
        }
        let mut log = Self {
            folded,
            base,
            chain: base,
            ..Self::default()
        };
        let mut above = 0;
        for _ in 0..count(&mut input, "kept entries")? {
            let position = u64::from_le_bytes(input.array()?);
            if position < above || position >= folded {
                return Err(DecodeError::Order);
            }
            above = position + 1;
            let entry = Entry::read(&mut input)?;
            completes_earlier(position, &entry)?;
            log.kept_bytes += entry.to_bytes().len();
            log.kept.push((position, entry));
        }
        for _ in 0..count(&mut input, "entries")? {
            let position = log.len();
            let entry = Entry::read(&mut input)?;
            completes_earlier(position, &entry)?;
            let bytes = entry.to_bytes();
            log.chain = log.chain.then(&bytes);
            log.recent_bytes += bytes.len();
            log.recent.push_back(entry);
        }
        input.end()?;
        match log.kept_bytes.max(log.recent_bytes) {
            0..=ENTRY_BYTES => Ok(log),
            _ => Err(DecodeError::TooMany("bytes of entries")),
        }
    }

    /// Reads a log and checks that REPORT_DATA of a report binds it to the nonce. The caller has verified the report.
    ///
    /// # Errors
    /// The bytes are no log, or another one than the report's.
    pub fn verify(bytes: &[u8], nonce: &Nonce, bound: &[u8; 64]) -> Result<Self, VerifyError> {
        let log = Self::decode(bytes)?;
        if report_data(nonce, &log.head()) == *bound {
            Ok(log)
        } else {
            Err(VerifyError::NotBound)
        }
    }
}

fn count(input: &mut Reader<'_>, what: &'static str) -> Result<usize, DecodeError> {
    match u32::from_le_bytes(input.array()?) as usize {
        count @ 0..=ENTRIES => Ok(count),
        _ => Err(DecodeError::TooMany(what)),
    }
}

fn completes_earlier(position: u64, entry: &Entry) -> Result<(), DecodeError> {
    match entry.completes() {
        Some(of) if of >= position => Err(DecodeError::Completes),
        _ => Ok(()),
    }
}
