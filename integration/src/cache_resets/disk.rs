//! A disk with a volatile write cache: a cut of the power loses any part of what was written since the last flush.

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 4096;

/// The disk, in memory.
pub struct Disk {
    /// As it reads.
    seen: Vec<u8>,
    /// As it would be after a cut that loses everything.
    kept: Vec<u8>,
    /// Written and not flushed: offsets and bytes in order, none longer than a sector.
    unflushed: Vec<(usize, Vec<u8>)>,
    lost: u64,
    survived: u64,
}

/// An access behind the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl Disk {
    /// A disk with this content.
    pub fn new(image: Vec<u8>) -> Self {
        Self {
            kept: image.clone(),
            seen: image,
            unflushed: Vec::new(),
            lost: 0,
            survived: 0,
        }
    }

    /// Capacity in bytes.
    pub fn bytes(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The bytes from `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Result<&[u8], OutOfRange> {
        let start = usize::try_from(offset).map_err(|_| OutOfRange)?;
        let end = start.checked_add(length).ok_or(OutOfRange)?;
        self.seen.get(start..end).ok_or(OutOfRange)
    }

    /// Writes to the cache.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), OutOfRange> {
        let start = usize::try_from(offset).map_err(|_| OutOfRange)?;
        let end = start.checked_add(bytes.len()).ok_or(OutOfRange)?;
        self.seen.get_mut(start..end).ok_or(OutOfRange)?.copy_from_slice(bytes);
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            self.unflushed.push((at, piece.to_vec()));
            (at, rest) = (at + piece.len(), after);
        }
        Ok(())
    }

    /// Empties the cache to where a cut does not reach.
    pub fn flush(&mut self) {
        for (at, bytes) in self.unflushed.drain(..) {
            self.kept[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Cuts the power: of what was not flushed each sector survives with this probability, in whatever order.
    pub fn cut(&mut self, survives: f64, random: &mut fastrand::Rng) {
        for (at, bytes) in self.unflushed.drain(..) {
            if random.f64() < survives {
                self.kept[at..at + bytes.len()].copy_from_slice(&bytes);
                self.survived += 1;
            } else {
                self.lost += 1;
            }
        }
        self.seen.copy_from_slice(&self.kept);
    }

    /// A sentence on what all cuts lost.
    pub fn lost(&self) -> String {
        format!("of sectors not flushed {} were lost and {} not", self.lost, self.survived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: usize = 8;

    fn disk() -> Disk {
        Disk::new(vec![0; SECTORS * SECTOR])
    }

    #[test]
    fn a_cut_loses_what_was_not_flushed() {
        let mut disk = disk();
        disk.write(0, &[1; 2 * SECTOR]).unwrap();
        disk.flush();
        disk.write(100, &[2; 3 * SECTOR]).unwrap();
        assert_eq!(disk.read(100, 1), Ok(&[2][..]));
        disk.cut(0.0, &mut fastrand::Rng::with_seed(1));
        assert_eq!(disk.read(0, 2 * SECTOR), Ok(&[1; 2 * SECTOR][..]));
        assert_eq!(disk.read(2 * SECTOR as u64, SECTOR), Ok(&[0; SECTOR][..]));
        disk.write(100, &[2; 3 * SECTOR]).unwrap();
        disk.cut(1.0, &mut fastrand::Rng::with_seed(1));
        assert_eq!(disk.read(100, 3 * SECTOR), Ok(&[2; 3 * SECTOR][..]));
    }

    #[test]
    fn whole_sectors_survive_in_any_choice() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut disk = disk();
            disk.write(0, &[1; 3 * SECTOR]).unwrap();
            disk.cut(0.5, &mut random);
            let sectors: Vec<bool> = disk.kept[..3 * SECTOR]
                .chunks(SECTOR)
                .map(|sector| {
                    assert!(sector.iter().all(|byte| *byte == sector[0]));
                    sector[0] == 1
                })
                .collect();
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn an_access_behind_the_end_changes_nothing() {
        let mut disk = disk();
        let end = disk.bytes();
        for (offset, length) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 2)] {
            assert_eq!(disk.read(offset, length), Err(OutOfRange));
            assert_eq!(disk.write(offset, &vec![1; length]), Err(OutOfRange));
        }
        assert!(disk.unflushed.is_empty() && disk.seen == disk.kept);
    }
}
