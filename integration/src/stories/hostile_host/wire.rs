//! Raw frames on the agent's control connection: several at once, valid and damaged, with every answer checked.

use crate::lab::vm::Vm;
use agent_protocol::{CONTROL_PORT, connect};
use anyhow::{Context, Result, bail, ensure};
use hostile_requests::{Sent, Stage, Traffic};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};
use ttrpc::{
    Code,
    proto::{Codec, MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader, Response},
};

/// Requests in flight at once: fewer than the agent accepts.
const BATCH: usize = 64;
/// Damaged frames that one connection sends.
const DAMAGED_BATCH: usize = 20;
/// One batch in so many is damaged: that connection is lost, and a new one takes as long as many requests.
const DAMAGED_ONE_IN: usize = 20;
/// Time limit of an answer, generous for a slow machine.
const ANSWER: Duration = Duration::from_secs(100);
/// A connection above the limit is closed at once; one that is still open after this time is served.
const CLOSED: Duration = Duration::from_secs(5);
/// Requests between two lines of output; a machine without output counts as hung.
const REPORT_EVERY: usize = 5_000;
/// Longest answer to any of these requests in bytes; a denial carries the decision for tools.
const ANSWER_BYTES: usize = 8 << 10;

/// Sends `count` requests at `stage`. None may have an effect, and each answer must be one that the model allows.
pub(super) async fn storm(vm: &Vm, traffic: &mut Traffic, stage: Stage, count: usize) -> Result<()> {
    let mut connection = connect(vm.vsock(), CONTROL_PORT).await.context("connecting")?;
    let mut answers = BTreeMap::<String, usize>::new();
    let mut sent = 0;
    let mut spoken = 0;
    while sent < count {
        if traffic.random.one_in(DAMAGED_ONE_IN) {
            sent += damaged(vm, traffic, stage).await?;
        } else {
            let batch: Vec<Sent> = (0..BATCH.min(count - sent)).map(|_| traffic.next(stage)).collect();
            sent += batch.len();
            for code in exchange(&mut connection, &batch).await? {
                *answers.entry(format!("{code:?}")).or_default() += 1;
            }
        }
        if sent - spoken >= REPORT_EVERY {
            spoken = sent;
            println!("    {sent} requests");
        }
    }
    println!("    {sent} requests: {answers:?}");
    Ok(())
}

/// Sends a batch in one write and reads as many answers, in any order.
async fn exchange(connection: &mut UnixStream, batch: &[Sent]) -> Result<Vec<Code>> {
    let mut bytes = Vec::new();
    for (n, sent) in batch.iter().enumerate() {
        bytes.extend(sent.frame(2 * n as u32 + 1));
    }
    let (mut reader, mut writer) = connection.split();
    let write = async { writer.write_all(&bytes).await.context("the agent closed the connection") };
    let read = async {
        let mut open: BTreeMap<u32, &Sent> = batch.iter().enumerate().map(|(n, sent)| (2 * n as u32 + 1, sent)).collect();
        let mut codes = Vec::new();
        while !open.is_empty() {
            let answer = timeout(ANSWER, answer(&mut reader)).await;
            let Ok(answer) = answer else {
                bail!("no answer to {:?}", open.values())
            };
            let (stream, response) = answer?.context("the agent closed the connection")?;
            let sent = open
                .remove(&stream)
                .with_context(|| format!("an answer to no request, on stream {stream}"))?;
            codes.push(judge(sent, &response)?);
        }
        Ok(codes)
    };
    let ((), codes) = tokio::try_join!(write, read)?;
    Ok(codes)
}

/// Checks that the model allows an answer's code and that the answer reveals nothing about the guest; returns the code.
fn judge(sent: &Sent, response: &Response) -> Result<Code> {
    let status = response.status();
    let code = status.code();
    ensure!(
        sent.allowed.contains(&code),
        "answered with {code:?} ({}): {sent:?}",
        status.message()
    );
    reveals_nothing(status.message())?;
    Ok(code)
}

fn reveals_nothing(message: &str) -> Result<()> {
    ensure!(message.len() < ANSWER_BYTES, "an answer has {} bytes", message.len());
    // The decision in it is part of the policy's own output.
    let plain = message.split("policyDecision<").next().unwrap_or_default();
    for word in ["os error", "/proc/", "/dev/dm", "/run/casemate", "panicked", ".rs:"] {
        ensure!(!plain.contains(word), "an answer reveals something about the guest: {message}");
    }
    Ok(())
}

/// Sends frames with changed bytes, including headers, on a separate connection; every answer must be a refusal.
async fn damaged(vm: &Vm, traffic: &mut Traffic, stage: Stage) -> Result<usize> {
    let mut bytes = Vec::new();
    for n in 0..DAMAGED_BATCH {
        bytes.extend(traffic.mutated(stage).frame(2 * n as u32 + 1));
    }
    for _ in 0..1 + traffic.random.below(6) {
        let at = traffic.random.below(bytes.len());
        match traffic.random.below(4) {
            0 => bytes.insert(at, traffic.random.next_u64() as u8),
            1 => {
                bytes.remove(at);
            }
            2 => bytes[at] = traffic.random.next_u64() as u8,
            _ => bytes[at] ^= 1 << traffic.random.below(8),
        }
    }
    let mut connection = connect(vm.vsock(), CONTROL_PORT).await.context("connecting for damaged frames")?;
    let (mut reader, mut writer) = connection.split();
    let write = async {
        // An agent may close the connection at the first bad header.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        Ok(())
    };
    let read = async {
        loop {
            let answer = timeout(ANSWER, answer(&mut reader))
                .await
                .context("damaged frames were not answered")?;
            let Some((_, response)) = answer? else { return Ok(()) };
            let status = response.status();
            // Listing processes has no effect and may succeed; nothing else may.
            let harmless = status.code() == Code::OK && stage == Stage::Running;
            ensure!(harmless || status.code() != Code::OK, "damaged frames succeeded at {stage:?}");
            ensure!(
                !matches!(status.code(), Code::INTERNAL | Code::UNKNOWN),
                "damaged frames made the agent fail: {}",
                status.message()
            );
            reveals_nothing(status.message())?;
        }
    };
    tokio::try_join!(write, read).map(|((), ())| DAMAGED_BATCH)
}

/// The next answer and its stream; `None` at the end of the connection.
async fn answer(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Option<(u32, Response)>> {
    let mut header = [0; MESSAGE_HEADER_LENGTH];
    if reader.read_exact(&mut header).await.is_err() {
        return Ok(None);
    }
    let header = MessageHeader::from(header);
    ensure!(
        header.type_ == MESSAGE_TYPE_RESPONSE,
        "the agent sent a frame of type {}",
        header.type_
    );
    let mut body = vec![0; header.length as usize];
    reader.read_exact(&mut body).await.context("an incomplete answer")?;
    let response = Response::decode(&body).context("an answer that is not a ttrpc response")?;
    Ok(Some((header.stream_id, response)))
}

/// Sends a request of about `bytes` and returns the code of the answer; checks that the connection still works.
pub(super) async fn oversized(vm: &Vm, bytes: usize) -> Result<Code> {
    let mut connection = served(vm).await?;
    let large = Sent {
        method: "SetPolicy",
        payload: vec![b'#'; bytes],
        allowed: vec![Code::INVALID_ARGUMENT],
        mutated: false,
    };
    let small = Sent {
        method: "StartContainer",
        payload: b"\x0a\x02..".to_vec(),
        ..large.clone()
    };
    let codes = exchange(&mut connection, &[large]).await?;
    exchange(&mut connection, &[small]).await?;
    codes.first().copied().context("no answer")
}

/// Sends `count` requests that are to be answered within a nanosecond, and reads no answer; ends when all are sent, or when the agent
/// reads no more of them.
pub(super) async fn hurried(vm: &Vm, traffic: &mut Traffic, stage: Stage, count: usize) -> Result<()> {
    let requests: Vec<Sent> = (0..BATCH).map(|_| traffic.next(stage)).collect();
    let mut connection = served(vm).await?;
    let mut sent = 0;
    while sent < count {
        let frames = requests
            .iter()
            .enumerate()
            .map(|(n, request)| request.frame_within(2 * (sent + n) as u32 + 1, 1));
        let bytes: Vec<u8> = frames.flatten().collect();
        match timeout(CLOSED, connection.write_all(&bytes)).await {
            Ok(written) => written.context("the agent closed the connection")?,
            Err(_) => break,
        }
        sent += BATCH;
        // A busy machine takes minutes for all of them, and one without output counts as hung.
        if sent % (16 * BATCH) == 0 {
            println!("    {sent} …");
        }
    }
    println!("    {sent} requests within a nanosecond, no answer read");
    Ok(())
}

/// A connection that is served: one that was closed just now may still count against the limit.
async fn served(vm: &Vm) -> Result<UnixStream> {
    loop {
        let mut connection = connect(vm.vsock(), CONTROL_PORT).await.context("connecting")?;
        if !is_refused(&mut connection).await? {
            return Ok(connection);
        }
    }
}

/// Whether the agent has closed the connection instead of serving it.
pub(super) async fn is_refused(connection: &mut UnixStream) -> Result<bool> {
    let ask = Sent {
        method: "StartContainer",
        payload: b"\x0a\x02..".to_vec(),
        allowed: vec![Code::INVALID_ARGUMENT],
        mutated: false,
    };
    if connection.write_all(&ask.frame(1)).await.is_err() {
        return Ok(true);
    }
    let (mut reader, _writer) = connection.split();
    match timeout(CLOSED, answer(&mut reader)).await {
        Ok(answer) => Ok(answer?.is_none()),
        Err(_) => bail!("a connection is neither served nor closed"),
    }
}
