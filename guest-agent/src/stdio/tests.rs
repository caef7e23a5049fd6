//! Bytes arrive completely and in order, each stream ends by itself, and a lost host connection does not block a process.

use super::*;
use crate::{decode::TerminalSize, reaper::Exit, streams::Streams};
use agent_protocol::StreamToken;
use std::io::{Read, Write};
use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
};

/// A connection of the host, and the agent's end of it.
async fn connection(n: u8) -> (DuplexStream, Stream<DuplexStream>) {
    let (mut host, guest) = duplex(1024);
    host.write_all(&[n; 16]).await.unwrap();
    let streams = Arc::new(Streams::default());
    streams.arrive(guest).await;
    (host, streams.claim(StreamToken([n; 16])).await.unwrap())
}

fn running() -> (watch::Sender<Option<Exit>>, ExitWatch) {
    watch::channel(None)
}

#[tokio::test]
async fn output_ends_after_the_last_writer_and_the_last_byte() {
    let (mut host, stream) = connection(1).await;
    let (reader, mut writer) = io::pipe().unwrap();
    let mut second = writer.try_clone().unwrap();
    let (_running, exit) = running();
    Pipes {
        stdin: None,
        outputs: vec![(reader, stream)],
    }
    .start(exit)
    .unwrap();
    let data = (0..500_000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    let expected = data.clone();
    let process = std::thread::spawn(move || {
        writer.write_all(&data).unwrap();
        drop(writer);
        second.write_all(b"tail").unwrap();
    });
    let mut received = Vec::new();
    host.read_to_end(&mut received).await.unwrap();
    process.join().unwrap();
    assert!(received.ends_with(b"tail"));
    assert_eq!(received[..received.len() - 4], expected);
}

#[tokio::test]
async fn a_lost_host_does_not_block_the_process() {
    let (host, stream) = connection(2).await;
    drop(host);
    let (reader, mut writer) = io::pipe().unwrap();
    let (_running, exit) = running();
    Pipes {
        stdin: None,
        outputs: vec![(reader, stream)],
    }
    .start(exit)
    .unwrap();
    let process = tokio::task::spawn_blocking(move || writer.write_all(&vec![0; 1 << 20]));
    process.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_hosts_end_of_input_reaches_the_process() {
    let (mut host, stream) = connection(3).await;
    let (mut reader, writer) = io::pipe().unwrap();
    let (_running, exit) = running();
    Pipes {
        stdin: Some((stream, writer)),
        outputs: vec![],
    }
    .start(exit)
    .unwrap();
    host.write_all(b"last words").await.unwrap();
    host.shutdown().await.unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    assert_eq!(read.await.unwrap().unwrap(), "last words");
}

#[tokio::test]
async fn input_stops_when_the_process_has_ended() {
    let (mut host, stream) = connection(4).await;
    let (_reader, writer) = io::pipe().unwrap();
    let (running, exit) = running();
    Pipes {
        stdin: Some((stream, writer)),
        outputs: vec![],
    }
    .start(exit)
    .unwrap();
    running.send_replace(Some(Exit { status: 0, at_ns: 0 }));
    assert_eq!(host.read(&mut [0]).await.unwrap(), 0, "the agent has closed the connection");
}

#[tokio::test]
async fn a_terminal_copies_both_ways_and_ends_with_its_last_process() {
    let pair = nix::pty::openpty(None, None).unwrap();
    let (mut host_out, out) = connection(5).await;
    let (mut host_in, stdin) = connection(6).await;
    let terminal = Arc::new(Terminal::new(pair.master).unwrap());
    terminal.resize(TerminalSize { columns: 132, rows: 43 }).unwrap();
    let (_running, exit) = running();
    start_terminal(
        &terminal,
        HostStreams {
            stdin: Some(stdin),
            stdout: Some(out),
            stderr: None,
        },
        exit,
    );
    host_in.write_all(b"typed\n").await.unwrap();
    let mut slave = std::fs::File::from(pair.slave);
    let slave = tokio::task::spawn_blocking(move || {
        let mut line = [0; 6];
        slave.read_exact(&mut line).unwrap();
        slave.write_all(b"answer").unwrap();
        line
    });
    assert_eq!(&slave.await.unwrap(), b"typed\n");
    let mut shown = Vec::new();
    host_out.read_to_end(&mut shown).await.unwrap();
    assert_eq!(shown, b"typed\r\nanswer");
}
