//! Serves the running guest's requests for certificates (Linux `Documentation/virt/kvm/api.rst`, `KVM_EXIT_SNP_REQ_CERTS`).

use crate::memory::Memory;
use snp_launch::{Answer, CertificateTable};
use vm_memory::{Bytes, GuestAddress};
use vm_spec::layout::GpaRange;

/// The certificates of a guest, and where it can have them.
#[derive(Debug)]
pub struct Certificates {
    table: CertificateTable,
    memory: Memory,
    ram: Vec<GpaRange>,
}

/// What KVM is told: an errno, and how many pages the guest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0, `ENOSPC` or `EIO`; KVM takes nothing else.
    pub errno: i32,
    /// For `ENOSPC`; else as the guest said.
    pub pages: u64,
}

impl Certificates {
    /// For a guest with `ram` in `memory`.
    pub fn new(table: CertificateTable, memory: Memory, ram: Vec<GpaRange>) -> Self {
        Self { table, memory, ram }
    }

    /// Writes the table to the guest's buffer, which it says is shared.
    pub fn serve(&self, start: u64, pages: u64) -> Reply {
        let reply = |errno, pages| Reply { errno, pages };
        match self.table.answer(start, pages, &self.ram) {
            Answer::Pages(needed) => reply(libc::ENOSPC, needed),
            Answer::Refused => reply(libc::EIO, pages),
            Answer::Write(range) => match self.memory.write_slice(self.table.bytes(), GuestAddress(range.start)) {
                Ok(()) => reply(0, pages),
                Err(_) => reply(libc::EIO, pages),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn the_table_is_written_where_the_guest_has_room_for_it() {
        let size = 64.try_into().unwrap();
        let memory = memory::allocate(size, memory::Pages::Huge).unwrap();
        let mut bytes = vec![7; 16];
        bytes.extend([48, 0, 0, 0, 3, 0, 0, 0]);
        bytes.extend([0; 24]);
        bytes.extend(b"DER");
        let ram = memory::mappings(&memory).map(|(range, _)| range).collect();
        let certificates = Certificates::new(bytes.clone().try_into().unwrap(), memory.clone(), ram);
        let reply = |errno, pages| Reply { errno, pages };
        assert_eq!(certificates.serve(0x1000, 0), reply(libc::ENOSPC, 1));
        assert_eq!(certificates.serve(64 << 20, 4), reply(libc::EIO, 4));
        assert_eq!(certificates.serve(0x1000, 4), reply(0, 4));
        let mut seen = vec![0; bytes.len()];
        memory.read_slice(&mut seen, GuestAddress(0x1000)).unwrap();
        assert_eq!(seen, bytes);
    }
}
