//! The content store: documents and blobs by digest, and the labels that keep them.

use super::{Containerd, ContainerdError, failed, found, made};
use casemate_shim::layers::converter::Blob;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, ReadContentResponse, UpdateRequest, WriteAction, WriteContentRequest,
    content_client::ContentClient,
};
use futures_util::stream::poll_fn;
use oci::{Digest, limits::DOCUMENT_MAX_BYTES};
use std::collections::HashMap;
use std::io::{self, PipeWriter, Read};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

/// Bytes of one message; gRPC's servers take 4 MiB, containerd's 16.
const CHUNK_BYTES: usize = 1 << 20;
/// Messages that are read ahead.
const AHEAD: usize = 4;

impl Containerd {
    /// An index, manifest or config; `None` if it is not there.
    pub async fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, ContainerdError> {
        let Some(mut stream) = self.read(digest).await? else {
            return Ok(None);
        };
        let mut document = Vec::new();
        loop {
            // Of some stores the first chunk says that there is none.
            let Some(chunk) = found(stream.message().await, reading(digest))? else {
                return Ok(None);
            };
            let Some(chunk) = chunk else { return Ok(Some(document)) };
            document.extend_from_slice(&chunk.data);
            if document.len() > DOCUMENT_MAX_BYTES {
                return Err(ContainerdError::Long(digest));
            }
        }
    }

    /// A blob, as a pipe that fills while `feed` of it runs; `None` if it is not there. `count` is told the bytes of each piece.
    pub async fn blob(&self, digest: Digest, count: impl Fn(u64) + Send + 'static) -> Result<Option<Blob>, ContainerdError> {
        if self.size(digest).await?.is_none() {
            return Ok(None);
        }
        let Some(stream) = self.read(digest).await? else { return Ok(None) };
        let (input, pipe) = io::pipe().map_err(|e| ContainerdError::Source(digest, e))?;
        Ok(Some(Blob {
            input: input.into(),
            feed: Some(Box::pin(copy(stream, pipe, count))),
        }))
    }

    async fn read(&self, digest: Digest) -> Result<Option<Streaming<ReadContentResponse>>, ContainerdError> {
        let request = self.request(ReadContentRequest {
            digest: digest.to_string(),
            ..Default::default()
        });
        let answer = ContentClient::new(self.channel()).read(request).await;
        Ok(found(answer, reading(digest))?.map(tonic::Response::into_inner))
    }

    /// Length of a blob in bytes; `None` if it is not there.
    pub async fn size(&self, digest: Digest) -> Result<Option<i64>, ContainerdError> {
        let request = self.unary(InfoRequest {
            digest: digest.to_string(),
        });
        let answer = ContentClient::new(self.channel()).info(request).await;
        let info = found(answer, reading(digest))?.and_then(|answer| answer.into_inner().info);
        Ok(info.map(|info| info.size))
    }

    /// Adds labels to a blob, others stay.
    pub async fn label(&self, digest: Digest, labels: HashMap<String, String>) -> Result<(), ContainerdError> {
        let mut update = UpdateRequest::default();
        update.update_mask.get_or_insert_default().paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        update.info = Some(Info {
            digest: digest.to_string(),
            labels,
            ..Default::default()
        });
        let answer = ContentClient::new(self.channel()).update(self.unary(update)).await;
        answer.map(drop).map_err(failed(format!("label {digest}")))
    }

    /// Writes a blob, which containerd checks against its digest. `ingest` names the write, and no other.
    pub async fn write(&self, digest: Digest, ingest: &str, content: Box<dyn Read + Send>) -> Result<(), ContainerdError> {
        let (send, mut receive) = mpsc::channel(AHEAD);
        let reference = ingest.to_owned();
        let reader = tokio::task::spawn_blocking(move || feed(content, digest, &reference, &send));
        let requests = self.request(poll_fn(move |context| receive.poll_recv(context)));
        let written = self.written(requests).await;
        // A reader that failed ended the stream early, whatever containerd made of that.
        let result = match reader.await {
            Err(_) => Err(ContainerdError::Panicked(digest)),
            Ok(Err(error)) => Err(ContainerdError::Source(digest, error)),
            Ok(Ok(())) => made(written, format!("write {digest} to its content store")),
        };
        if result.is_err() {
            let abort = self.unary(AbortRequest { r#ref: ingest.to_owned() });
            // The lease has an end, and unfinished writes with it.
            let _ = ContentClient::new(self.channel()).abort(abort).await;
        }
        result
    }

    async fn written(
        &self,
        requests: tonic::Request<impl futures_util::Stream<Item = WriteContentRequest> + Send + 'static>,
    ) -> Result<(), Status> {
        let mut answers = ContentClient::new(self.channel()).write(requests).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.action() == WriteAction::Commit {
                return Ok(());
            }
        }
        Err(Status::new(Code::Aborted, "the write ended before it was committed"))
    }
}

fn reading(digest: Digest) -> String {
    format!("read {digest}")
}

/// Sends `content` in pieces and then its end. That nobody takes them any more is no failure: whoever did says why.
fn feed(mut content: Box<dyn Read + Send>, digest: Digest, ingest: &str, to: &mpsc::Sender<WriteContentRequest>) -> io::Result<()> {
    let mut total = 0;
    loop {
        // Said with every piece: offset 0, which is the default, begins anew.
        let offset = total;
        let mut data = Vec::new();
        content.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data)?;
        total += data.len() as i64;
        let (action, end) = match data.is_empty() {
            true => (WriteAction::Commit, true),
            false => (WriteAction::Write, false),
        };
        let request = WriteContentRequest {
            action: action.into(),
            r#ref: ingest.to_owned(),
            total: if end { total } else { 0 },
            // Said at once: content that is there joins the lease then, and is not written again.
            expected: digest.to_string(),
            offset,
            data,
            ..Default::default()
        };
        if to.blocking_send(request).is_err() || end {
            return Ok(());
        }
    }
}

/// Copies a blob into a pipe. That nobody reads it any more is no failure either.
async fn copy(mut chunks: Streaming<ReadContentResponse>, pipe: PipeWriter, count: impl Fn(u64)) -> io::Result<()> {
    let mut pipe = Sender::from_owned_fd(pipe.into())?;
    while let Some(chunk) = chunks.message().await.map_err(io::Error::other)? {
        match pipe.write_all(&chunk.data).await {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
        count(chunk.data.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_sent_in_pieces_and_committed_with_its_length() {
        let content = vec![7; CHUNK_BYTES + 5];
        let digest = Digest::of(&content);
        let (send, mut receive) = mpsc::channel(AHEAD);
        feed(Box::new(io::Cursor::new(content)), digest, "one", &send).unwrap();
        drop(send);
        let mut sent = Vec::new();
        while let Some(request) = receive.blocking_recv() {
            assert_eq!(request.r#ref, "one");
            assert_eq!(request.expected, digest.to_string());
            sent.push((request.action(), request.offset, request.data.len(), request.total));
        }
        let whole = CHUNK_BYTES as i64 + 5;
        assert_eq!(
            sent,
            [
                (WriteAction::Write, 0, CHUNK_BYTES, 0),
                (WriteAction::Write, CHUNK_BYTES as i64, 5, 0),
                (WriteAction::Commit, whole, 0, whole)
            ]
        );
    }

    #[test]
    fn a_source_that_breaks_off_is_not_committed() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::Error::other("the disk is gone"));
                }
                buffer[0] = 1;
                Ok(1)
            }
        }
        let (send, mut receive) = mpsc::channel(AHEAD);
        assert!(feed(Box::new(Broken(false)), Digest::of(b""), "one", &send).is_err());
        drop(send);
        assert!(receive.blocking_recv().is_none());
    }
}
