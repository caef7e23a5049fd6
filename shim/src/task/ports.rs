//! Connections to the loopback of the pod's network namespace, as `kubectl port-forward` makes them: each is carried to the container
//! that listens on its port.

use super::{Tasks, process::ProcessState};
use crate::{sandbox::agent_call, stdio::random_token, vm::Vm};
use agent_protocol::{ForwardPortRequest, open_stream};
use pod_network::Loopback;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
};

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 256;

/// Serves the connections until the VM ends.
pub async fn serve(tasks: Weak<Tasks>, vm: Arc<Vm>, loopback: Loopback) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let listeners = loopback.listeners();
    let listeners = listeners.and_then(|(v4, v6)| Ok((TcpListener::from_std(v4)?, v6.map(TcpListener::from_std).transpose()?)));
    let (v4, v6) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => return log::warn!("no port of the pod can be forwarded: {error}"),
    };
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = v4.accept() => accepted,
            accepted = accept(v6.as_ref()) => accepted,
            () = vm.ended() => return,
        };
        match accepted {
            Ok((client, _)) => {
                let (tasks, vm) = (tasks.clone(), vm.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = carry(&tasks, &vm, client) => {}
                        () = vm.ended() => {}
                    }
                    drop(place);
                });
            }
            // Of one client; but a process without descriptors must not spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Never, where there is no listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Carries one connection, or closes it.
async fn carry(tasks: &Weak<Tasks>, vm: &Vm, mut client: TcpStream) {
    let Ok(port) = client.local_addr().map(|address| address.port()) else {
        return;
    };
    let mut refused = Vec::new();
    for container in running(tasks) {
        match open(vm, &container, port).await {
            Ok(mut guest) => {
                // Either side may end at any time.
                let _ = copy_bidirectional(&mut client, &mut guest).await;
                return;
            }
            Err(error) => refused.push(format!("{container}: {error}")),
        }
    }
    log::info!("a connection to port {port} of the pod was closed ({})", refused.join("; "));
}

/// The containers that may listen.
fn running(tasks: &Weak<Tasks>) -> Vec<String> {
    let containers = tasks.upgrade().map(|tasks| tasks.containers.all()).unwrap_or_default();
    let running = containers
        .iter()
        .filter(|container| container.init.state() == ProcessState::Running);
    running.map(|container| container.id.clone()).collect()
}

/// A stream to `port`, if `container` listens on it and the policy allows it.
async fn open(vm: &Vm, container: &str, port: u16) -> Result<UnixStream, Box<dyn std::error::Error + Send + Sync>> {
    let token = random_token()?;
    let stream = open_stream(vm.vsock(), token).await?;
    let forward = ForwardPortRequest {
        container_id: container.to_owned(),
        port: port.into(),
        stream_token: token.0.to_vec(),
        ..Default::default()
    };
    vm.agent().forward_port(agent_call(), &forward).await?;
    Ok(stream)
}
