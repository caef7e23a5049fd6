//! Bytes of the log's encoding, read strictly: each log has one encoding, and other bytes are refused.

/// Why bytes are no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than any log has.
    #[error("{0} bytes are more than a log can have")]
    Size(usize),
    /// The first bytes are another format's, or another version's.
    #[error("not a permit log of version 1")]
    Magic,
    /// The bytes end within a field.
    #[error("the log ends within a field")]
    Short,
    /// Bytes follow that belong to nothing.
    #[error("bytes follow that belong to no field")]
    Trailing,
    /// An entry of an unknown kind, which may be a newer agent's.
    #[error("entries of kind {0} are unknown")]
    Kind(u8),
    /// A field has a value that is never written.
    #[error("the {0} is none that is written")]
    Value(&'static str),
    /// More of something than is ever written.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// Folded entries are not in the order of their positions, or lie beyond them.
    #[error("a folded entry is out of order")]
    Order,
    /// An entry completes one that does not come before it.
    #[error("an entry completes one that does not come before it")]
    Completes,
}

#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.0.push(flag.into());
    }

    pub(crate) fn optional<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A byte for the kind, the length of the body as u16, and the body.
    pub(crate) fn framed(&mut self, kind: u8, body: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        body(&mut inner);
        self.0.push(kind);
        // The largest entry, a root file system of 128 layers, has 4128 bytes.
        self.bytes(&(inner.0.len() as u16).to_le_bytes());
        self.bytes(&inner.0);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) struct Reader<'b>(pub(crate) &'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::Value("flag")),
        }
    }

    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
        Ok(if self.flag()? { Some(read(self)?) } else { None })
    }

    pub(crate) fn framed(&mut self) -> Result<(u8, Reader<'b>), DecodeError> {
        let [kind] = self.array()?;
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let (body, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok((kind, Reader(body)))
    }

    pub(crate) fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}
