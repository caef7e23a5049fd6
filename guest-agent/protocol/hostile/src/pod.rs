//! Malformed requests about what a pod's containers share: its network and its files.

use agent_protocol::{ConfigureNetworkRequest, WritePodFilesRequest};
use ttrpc::Code;

use crate::{Sent, Traffic};

impl Traffic {
    pub(super) fn malformed_of_pod(&mut self, bad: String, good: String, codes: &[Code]) -> Sent {
        if self.random.one_in(2) {
            let addresses = [vec!["10.0.0.1".to_owned()], vec!["::/0".to_owned(); 65], vec![bad]];
            let request = ConfigureNetworkRequest {
                interface: "eth0".to_owned(),
                addresses: addresses[self.random.below(3)].clone(),
                ..Default::default()
            };
            return Sent::new("ConfigureNetwork", &request, codes);
        }
        let request = WritePodFilesRequest {
            sandbox_id: if self.random.one_in(2) { bad } else { good },
            // Of two readers, one sees two lines.
            hosts: b"127.0.0.1 localhost\r10.0.0.1 bank\n".to_vec(),
            shm_bytes: self.random.below(1 << 30) as u64,
            ..Default::default()
        };
        Sent::new("WritePodFiles", &request, codes)
    }
}
