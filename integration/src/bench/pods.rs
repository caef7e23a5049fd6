//! Pods by CRI, compared with runc: until a pod is ready, until a container in it runs, until the pod is gone; and the pod's network.

use super::{
    ctr::BOTH,
    report::{Row, median},
};
use crate::{
    lab::{
        Runtime,
        cri::{Cri, Pod, PodContainer, RunningPod},
    },
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Rounds. The first is dropped: it converts the layers.
const ROUNDS: usize = 4;
/// Bytes of the stream from the node into a pod.
const STREAM_BYTES: usize = 16 << 20;
/// Connections to a closed port, each one packet there and one back.
const TRIPS: usize = 50;
const PORT: u16 = 9000;
const CLOSED_PORT: u16 = 9001;
const SERVES_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// What is measured of each pod, in order: a name and a unit.
const FIGURES: [(&str, &str); 5] = [
    ("RunPodSandbox until ready", "s"),
    ("CreateContainer and StartContainer", "s"),
    ("StopPodSandbox and RemovePodSandbox", "s"),
    ("16 MiB from the node into a pod", "s"),
    ("a packet to a pod and back", "ms"),
];

/// Measures; returns all rows.
pub fn measure() -> Result<Vec<Row>> {
    let cri = Cri::start(Runtime::Casemate, &[BUSYBOX])?;
    let mut taken = [const { [const { Vec::new() }; FIGURES.len()] }; 2];
    for round in 0..ROUNDS {
        for (runtime, taken) in BOTH.into_iter().zip(&mut taken) {
            let figures = of_a_pod(&cri, runtime)?;
            println!("round {round}: {} {figures:.4?}", runtime.short());
            if round > 0 {
                taken.iter_mut().zip(figures).for_each(|(all, one)| all.push(one));
            }
        }
    }
    let [ours, theirs] = taken;
    let rows = FIGURES.iter().zip(ours.iter().zip(&theirs)).map(|((name, unit), (ours, theirs))| {
        let value = median(ours).context("no round succeeded")?;
        let peer = median(theirs).context("no round succeeded")?;
        Ok(Row::of(name, value, unit).compared_with("runc", peer))
    });
    rows.collect()
}

fn of_a_pod(cri: &Cri, runtime: Runtime) -> Result<[f64; FIGURES.len()]> {
    let begun = Instant::now();
    let pod = cri.run_on(runtime.short(), Pod::new("bench"))?;
    let ready = begun.elapsed();
    let server = format!("while :; do nc -l -p {PORT} >/dev/null; done");
    let begun = Instant::now();
    pod.run(&PodContainer::new("server", BUSYBOX, &["sh", "-c", &server]))?;
    let runs = begun.elapsed();
    let stream = stream(&pod)?;
    let trip = round_trip(&pod)?;
    let begun = Instant::now();
    pod.end()?;
    let gone = begun.elapsed();
    Ok([
        ready.as_secs_f64(),
        runs.as_secs_f64(),
        gone.as_secs_f64(),
        stream.as_secs_f64(),
        trip.as_secs_f64() * 1000.0,
    ])
}

fn address(pod: &RunningPod<'_>, port: u16) -> Result<SocketAddr> {
    let addresses = pod.addresses()?;
    let first = addresses.first().context("the pod has no address")?;
    Ok(SocketAddr::new(first.parse().context("the pod's address is none")?, port))
}

/// From the first byte until the server has closed its side, which it does at the end of what it has read.
fn stream(pod: &RunningPod<'_>) -> Result<Duration> {
    let address = address(pod, PORT)?;
    let end = Instant::now() + SERVES_WITHIN;
    let mut connection = loop {
        match TcpStream::connect(address) {
            Ok(connection) => break connection,
            Err(_) if Instant::now() < end => std::thread::sleep(POLL),
            Err(error) => return Err(error).context("the pod's server does not listen"),
        }
    };
    let chunk = vec![0_u8; 1 << 16];
    let begun = Instant::now();
    for _ in 0..STREAM_BYTES / chunk.len() {
        connection.write_all(&chunk).context("cannot write to the pod")?;
    }
    connection.shutdown(Shutdown::Write).context("cannot end the stream")?;
    connection.read_to_end(&mut Vec::new()).context("cannot read from the pod")?;
    Ok(begun.elapsed())
}

/// Median time until a closed port of the pod has refused a connection.
fn round_trip(pod: &RunningPod<'_>) -> Result<Duration> {
    let address = address(pod, CLOSED_PORT)?;
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let begun = Instant::now();
        let refused = TcpStream::connect(address).err().map(|error| error.kind());
        ensure!(
            refused == Some(ErrorKind::ConnectionRefused),
            "a closed port of the pod: {refused:?}"
        );
        trips.push(begun.elapsed().as_secs_f64());
    }
    median(&trips).map(Duration::from_secs_f64).context("no packet came back")
}
