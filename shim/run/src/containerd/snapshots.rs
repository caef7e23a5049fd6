//! Snapshots: unpacked layers by chain id, and what a container writes over them.

use super::{Containerd, ContainerdError, failed, found, made};
use containerd_client::services::v1::{
    ApplyRequest,
    diff_client::DiffClient,
    snapshots::{
        CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, snapshots_client::SnapshotsClient,
    },
};
use containerd_client::types::{Descriptor, Mount};
use tonic::Code;

impl Containerd {
    /// Whether there is a snapshot of that name or key.
    pub async fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool, ContainerdError> {
        let request = self.unary(StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let answer = SnapshotsClient::new(self.channel()).stat(request).await;
        Ok(found(answer, format!("look up snapshot {key} of snapshotter {snapshotter}"))?.is_some())
    }

    /// Makes a snapshot that can be written to; an empty parent is none. Returns its mounts.
    pub async fn prepare_snapshot(&self, snapshotter: &str, key: &str, parent: &str) -> Result<Vec<Mount>, ContainerdError> {
        let request = self.unary(PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        });
        let answer = SnapshotsClient::new(self.channel()).prepare(request).await;
        let answer = answer.map_err(failed(format!("prepare snapshot {key} of snapshotter {snapshotter}")))?;
        Ok(answer.into_inner().mounts)
    }

    /// Makes a written snapshot the one called `name`. False if there is one already: this one is then left as it is.
    pub async fn commit_snapshot(&self, snapshotter: &str, name: &str, key: &str) -> Result<bool, ContainerdError> {
        // The data may have to reach the disk first.
        let request = self.request(CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        });
        let answer = SnapshotsClient::new(self.channel()).commit(request).await;
        let new = !matches!(&answer, Err(status) if status.code() == Code::AlreadyExists);
        made(answer, format!("keep snapshot {name}"))?;
        Ok(new)
    }

    /// Removes a snapshot, if there is one.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<(), ContainerdError> {
        let request = self.unary(RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let answer = SnapshotsClient::new(self.channel()).remove(request).await;
        found(answer, format!("remove snapshot {key}")).map(drop)
    }

    /// Unpacks a layer's blob into mounts; returns the digest of its tar.
    pub async fn apply(&self, layer: Descriptor, mounts: Vec<Mount>) -> Result<String, ContainerdError> {
        let doing = format!("unpack layer {}", layer.digest);
        let request = self.request(ApplyRequest {
            diff: Some(layer),
            mounts,
            ..Default::default()
        });
        let answer = DiffClient::new(self.channel())
            .apply(request)
            .await
            .map_err(failed(doing.clone()))?;
        let applied = answer.into_inner().applied.ok_or(ContainerdError::Empty(doing))?;
        Ok(applied.digest)
    }
}
