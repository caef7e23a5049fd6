//! A blob as a stream: hashed while it runs, continued where a connection broke, and at its end only if it is the blob that was asked for.

mod breaks;

use crate::error::{Cause, PullError, Step};
use crate::repository::{Repository, Request};
use crate::transport::{ANSWER_WAIT, Answer, TransportError};
use breaks::Breaks;
use oci::Digest;
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio::time::Instant;

/// What every blob may take, and the slowest rate beyond that, in bytes per second.
const BASE_TIME: Duration = Duration::from_secs(600);
const MIN_RATE: u64 = 32 << 10;

/// A part of a blob.
pub type Chunk = bytes::Bytes;

/// A blob on its way.
pub struct BlobStream<'a> {
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    hash: Sha256,
    read: u64,
    answer: Option<Answer>,
    /// Bytes of the answer before the wanted ones.
    skip: u64,
    breaks: Breaks,
    limit: Duration,
    /// When its first bytes were asked for: a stream may wait for its turn for as long as it likes.
    start: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Complete,
    Failed,
}

/// How a connection went on.
enum Next {
    Bytes(Chunk),
    End,
    Broken(PullError),
}

impl Repository {
    /// A blob; the first request is sent with the first chunk.
    pub fn blob(&self, digest: Digest, size: u64) -> BlobStream<'_> {
        BlobStream {
            repository: self,
            digest,
            size,
            hash: Sha256::new(),
            read: 0,
            answer: None,
            skip: 0,
            breaks: Breaks::new(),
            limit: BASE_TIME + Duration::from_secs(size / MIN_RATE),
            start: None,
            state: State::Running,
        }
    }
}

impl BlobStream<'_> {
    /// The next bytes. `None` comes only after the last byte of exactly the blob that was asked for: whoever uses the bytes before must
    /// be able to forget them.
    ///
    /// # Errors
    /// It cannot be had, or is another. Every later call fails too.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>, PullError> {
        match self.state {
            State::Running => {}
            State::Complete => return Ok(None),
            State::Failed => return Err(self.failed(Cause::Failed)),
        }
        let next = self.next().await;
        match &next {
            Ok(Some(_)) => {}
            Ok(None) => self.state = State::Complete,
            Err(_) => self.state = State::Failed,
        }
        next
    }

    async fn next(&mut self) -> Result<Option<Chunk>, PullError> {
        let start = *self.start.get_or_insert_with(Instant::now);
        loop {
            if start.elapsed() > self.limit {
                return Err(self.failed(Cause::TooSlow(self.limit.as_secs())));
            }
            let broken = match self.step().await? {
                Next::Bytes(bytes) if bytes.is_empty() => continue,
                Next::Bytes(bytes) => return self.take(bytes).map(Some),
                // After the last byte, how the connection ends says nothing; whether this is the blob, the digest does.
                Next::End | Next::Broken(_) if self.read == self.size => return self.finish().map(|()| None),
                Next::End => self.failed(Cause::Truncated {
                    expected: self.size,
                    found: self.read,
                }),
                Next::Broken(error) => error,
            };
            self.answer = None;
            if !self.breaks.wait(start + self.limit).await {
                return Err(broken);
            }
        }
    }

    /// Goes on with the connection, or makes one.
    async fn step(&mut self) -> Result<Next, PullError> {
        if self.answer.is_none() {
            match self.open().await {
                // What broke the last connection, such as a registry that starts again, takes its time.
                Err(error) if self.breaks.is_resuming() && error.cause.may_pass() => return Ok(Next::Broken(error)),
                opened => opened?,
            }
        }
        let Some(answer) = &mut self.answer else { return Ok(Next::End) };
        let came = tokio::time::timeout(ANSWER_WAIT, answer.response.chunk()).await;
        let next = match came {
            Ok(Ok(Some(bytes))) => Next::Bytes(bytes),
            Ok(Ok(None)) => Next::End,
            Ok(Err(error)) => Next::Broken(self.failed(TransportError::new(error).into())),
            Err(_) => Next::Broken(self.failed(TransportError::Stalled.into())),
        };
        Ok(match next {
            Next::Bytes(mut bytes) => {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                Next::Bytes(bytes.split_off(skipped as usize))
            }
            other => other,
        })
    }

    /// Asks for what is missing.
    async fn open(&mut self) -> Result<(), PullError> {
        let request = Request {
            step: Step::Layer(self.digest),
            path: format!("blobs/{}", self.digest),
            accept: "*/*",
            from: self.read,
        };
        let answer = self.repository.get(&request).await?;
        let length = answer.response.content_length();
        match answer.response.status() {
            StatusCode::OK => {
                if let Some(found) = length.filter(|found| *found != self.size) {
                    return Err(self.failed(Cause::Size {
                        expected: self.size,
                        found,
                    }));
                }
                self.skip = self.read;
            }
            StatusCode::PARTIAL_CONTENT if self.read > 0 && starts_at(&answer, self.read) => self.skip = 0,
            StatusCode::PARTIAL_CONTENT => return Err(self.failed(Cause::Part)),
            StatusCode::RANGE_NOT_SATISFIABLE if self.read > 0 => {
                return Err(self.failed(Cause::Truncated {
                    expected: self.size,
                    found: self.read,
                }));
            }
            status => return Err(self.repository.status(request.step, status, answer).await),
        }
        self.breaks.answered();
        self.answer = Some(answer);
        Ok(())
    }

    fn take(&mut self, bytes: Chunk) -> Result<Chunk, PullError> {
        self.read += bytes.len() as u64;
        if self.read > self.size {
            return Err(self.failed(Cause::Endless(self.size)));
        }
        self.breaks.progressed();
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<(), PullError> {
        let found = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        match found == self.digest {
            true => Ok(()),
            false => Err(self.failed(Cause::Digest {
                expected: self.digest,
                found,
            })),
        }
    }

    fn failed(&self, cause: Cause) -> PullError {
        self.repository.failed(Step::Layer(self.digest), cause)
    }
}

/// Whether a partial answer starts where it was asked to (RFC 9110, 14.4: `bytes FIRST-LAST/SIZE`).
fn starts_at(answer: &Answer, first: u64) -> bool {
    let range = answer.response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    start == Some(first)
}
