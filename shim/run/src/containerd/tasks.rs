//! Tasks: the processes of a container from creation to deletion.

use super::{Containerd, ContainerdError, failed, found};
use containerd_client::services::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteTaskRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
    snapshots::{MountsRequest, snapshots_client::SnapshotsClient},
    tasks_client::TasksClient,
};

/// Paths of a task's FIFOs; empty for none.
pub struct Stdio {
    /// Read by the task.
    pub stdin: String,
    /// Written by the task.
    pub stdout: String,
    /// Written by the task; with a terminal there is none.
    pub stderr: String,
    /// The streams are one terminal.
    pub terminal: bool,
}

impl Containerd {
    /// Creates the task of a container: with this runtime the VM boots and the policy judges.
    pub async fn create_task(&self, id: &str, snapshotter: &str, stdio: Stdio) -> Result<(), ContainerdError> {
        let mounts = self.unary(MountsRequest {
            snapshotter: snapshotter.to_owned(),
            key: id.to_owned(),
        });
        let mounts = SnapshotsClient::new(self.channel()).mounts(mounts).await;
        let rootfs = mounts.map_err(failed(format!("mount snapshot {id}")))?.into_inner().mounts;
        let request = self.request(CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).create(request).await;
        answer.map(drop).map_err(failed(format!("create the task of container {id}")))
    }

    /// Starts the container's init.
    pub async fn start_task(&self, id: &str) -> Result<(), ContainerdError> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).start(request).await;
        answer.map(drop).map_err(failed(format!("start container {id}")))
    }

    /// Waits for the exit of the container's init; returns its status.
    pub async fn wait_task(&self, id: &str) -> Result<u32, ContainerdError> {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).wait(request).await;
        let answer = answer.map_err(failed(format!("wait for container {id}")))?;
        Ok(answer.into_inner().exit_status)
    }

    /// Sends a signal to the container's init.
    pub async fn kill_task(&self, id: &str, signal: u32) -> Result<(), ContainerdError> {
        let request = self.unary(KillRequest {
            container_id: id.to_owned(),
            signal,
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).kill(request).await;
        answer.map(drop).map_err(failed(format!("send signal {signal} to container {id}")))
    }

    /// Deletes a task that has ended, after its output; success if there is none.
    pub async fn delete_task(&self, id: &str) -> Result<(), ContainerdError> {
        // Output that is under way goes to its reader first.
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        let answer = TasksClient::new(self.channel()).delete(request).await;
        found(answer, format!("delete the task of container {id}")).map(drop)
    }

    /// Sets the size of the terminal.
    pub async fn resize_task(&self, id: &str, width: u32, height: u32) -> Result<(), ContainerdError> {
        let request = self.unary(ResizePtyRequest {
            container_id: id.to_owned(),
            width,
            height,
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).resize_pty(request).await;
        answer.map(drop).map_err(failed(format!("resize the terminal of container {id}")))
    }

    /// Ends the standard input, after what was written.
    pub async fn close_stdin(&self, id: &str) -> Result<(), ContainerdError> {
        let request = self.unary(CloseIoRequest {
            container_id: id.to_owned(),
            stdin: true,
            ..Default::default()
        });
        let answer = TasksClient::new(self.channel()).close_io(request).await;
        answer.map(drop).map_err(failed(format!("end the input of container {id}")))
    }
}
