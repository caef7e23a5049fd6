//! What the shim asks of containerd's gRPC services: a container, its image, its snapshot, and blobs.

use super::image::Digest;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, PluginsRequest, ReadContentRequest,
    containers_client::ContainersClient,
    content_client::ContentClient,
    images_client::ImagesClient,
    introspection_client::IntrospectionClient,
    snapshots::{StatSnapshotRequest, snapshots_client::SnapshotsClient},
};
use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

/// Longest manifest or configuration, as containerd has it.
const DOCUMENT_MAX_BYTES: usize = 8 << 20;
/// containerd must answer a unary call within this time.
const ANSWER: Duration = Duration::from_secs(30);
/// Chunks of a blob that may wait for the converter, about 1 MiB each at most.
const CHUNKS: usize = 4;
/// The header by which containerd knows the namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// Why containerd did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Its socket does not answer.
    #[error("cannot reach containerd at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    /// The namespace is not fit for a header.
    #[error("{0:?} is not a namespace")]
    Namespace(String),
    /// A call failed.
    #[error("containerd cannot {doing}: {}", status.message())]
    Call {
        /// What was asked.
        doing: String,
        /// What it answered.
        status: Box<Status>,
    },
    /// An answer without its content.
    #[error("containerd's answer is empty: {0}")]
    Empty(String),
    /// The image was removed since.
    #[error("image {0} is no longer in containerd; its layers cannot be read")]
    NoImage(String),
    /// The content store does not hold a part of the image.
    #[error("{digest} of the image is not in containerd's content store (pulled with discard_unpacked_layers?)")]
    NoBlob {
        /// The part that is missing.
        digest: String,
    },
    /// A document that no image needs.
    #[error("document {0} of the image is longer than {DOCUMENT_MAX_BYTES} bytes")]
    Long(String),
    /// A layer in the store cannot be read.
    #[error("cannot read {} from the content store", .0.display())]
    Read(PathBuf, #[source] io::Error),
}

/// A container as far as its image is concerned.
pub struct FoundContainer {
    /// Name of the image; empty if it has none.
    pub image: String,
    snapshotter: String,
    snapshot_key: String,
}

/// A connection to containerd.
pub struct Content {
    channel: Channel,
    namespace: MetadataValue<tonic::metadata::Ascii>,
}

impl Content {
    /// Connects to the socket at `address`.
    pub async fn connect(address: &str, namespace: &str) -> Result<Self, ContentError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let channel = containerd_client::connect(path)
            .await
            .map_err(|e| ContentError::Connect(address.to_owned(), e))?;
        let namespace = namespace.parse().map_err(|_| ContentError::Namespace(namespace.to_owned()))?;
        Ok(Self { channel, namespace })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        request
    }

    fn unary<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request.set_timeout(ANSWER);
        request
    }

    /// Looks up a container.
    pub async fn container(&self, id: &str) -> Result<FoundContainer, ContentError> {
        let doing = || format!("look up container {id}");
        let request = self.unary(GetContainerRequest { id: id.to_owned() });
        let answer = ContainersClient::new(self.channel.clone())
            .get(request)
            .await
            .map_err(failed(doing()))?;
        let container = answer.into_inner().container.ok_or_else(|| ContentError::Empty(doing()))?;
        Ok(FoundContainer {
            image: container.image,
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
        })
    }

    /// Digest that an image's name points to.
    pub async fn image_target(&self, name: &str) -> Result<String, ContentError> {
        let request = self.unary(GetImageRequest { name: name.to_owned() });
        match ImagesClient::new(self.channel.clone()).get(request).await {
            Err(status) if status.code() == Code::NotFound => Err(ContentError::NoImage(name.to_owned())),
            Err(status) => Err(failed(format!("look up image {name}"))(status)),
            Ok(answer) => {
                let target = answer.into_inner().image.and_then(|image| image.target);
                target
                    .map(|t| t.digest)
                    .ok_or_else(|| ContentError::Empty(format!("look up image {name}")))
            }
        }
    }

    /// The chain id that a container's snapshot was made from.
    pub async fn snapshot_parent(&self, container: &FoundContainer) -> Result<String, ContentError> {
        let doing = || {
            format!(
                "look up snapshot {} of snapshotter {}",
                container.snapshot_key, container.snapshotter
            )
        };
        let message = StatSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: container.snapshot_key.clone(),
        };
        let answer = SnapshotsClient::new(self.channel.clone())
            .stat(self.unary(message))
            .await
            .map_err(failed(doing()))?;
        answer
            .into_inner()
            .info
            .map(|info| info.parent)
            .ok_or_else(|| ContentError::Empty(doing()))
    }

    /// Reads a whole manifest or configuration.
    pub async fn document(&self, digest: &str, image: &str) -> Result<Vec<u8>, ContentError> {
        let mut stream = self.read(digest).await?;
        let mut document = Vec::new();
        while let Some(chunk) = stream.message().await.map_err(failed(format!("read {digest} of image {image}")))? {
            document.extend_from_slice(&chunk.data);
            if document.len() > DOCUMENT_MAX_BYTES {
                return Err(ContentError::Long(digest.to_owned()));
            }
        }
        Ok(document)
    }

    /// Opens a blob: the store's own file where it can be seen, else containerd's stream of it.
    pub async fn blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ContentError> {
        if let Some(path) = self.store().await.map(|root| root.join("blobs/sha256").join(digest.hex())) {
            match File::open(&path) {
                Ok(file) => return Ok(Box::new(file)),
                // A content store elsewhere, or behind a plugin: containerd itself can read it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(ContentError::Read(path, e)),
            }
        }
        let mut stream = self.read(digest.as_str()).await?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            loop {
                let next = stream.message().await.map_err(io::Error::other).map(|m| m.map(|m| m.data));
                let last = !matches!(next, Ok(Some(_)));
                if let Some(chunk) = next.transpose()
                    && sender.send(chunk).await.is_err()
                {
                    return;
                }
                if last {
                    return;
                }
            }
        });
        Ok(Box::new(ChunkReader {
            receiver,
            chunk: Vec::new(),
            position: 0,
        }))
    }

    async fn read(&self, digest: &str) -> Result<Streaming<containerd_client::services::v1::ReadContentResponse>, ContentError> {
        let request = self.request(ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        });
        match ContentClient::new(self.channel.clone()).read(request).await {
            Ok(stream) => Ok(stream.into_inner()),
            Err(status) if status.code() == Code::NotFound => Err(ContentError::NoBlob { digest: digest.to_owned() }),
            Err(status) => Err(failed(format!("read {digest}"))(status)),
        }
    }

    /// Directory of the local content store, which its plugin exports.
    async fn store(&self) -> Option<PathBuf> {
        let message = PluginsRequest {
            filters: vec!["type==io.containerd.content.v1,id==content".to_owned()],
        };
        let answer = IntrospectionClient::new(self.channel.clone())
            .plugins(self.unary(message))
            .await
            .ok()?;
        let plugin = answer.into_inner().plugins.into_iter().next()?;
        plugin.exports.get("root").map(PathBuf::from)
    }
}

fn failed(doing: String) -> impl FnOnce(Status) -> ContentError {
    move |status| ContentError::Call {
        doing,
        status: Box::new(status),
    }
}

/// A stream of chunks as a reader, for a thread that may block.
struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    position: usize,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.chunk.len() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => (self.chunk, self.position) = (chunk?, 0),
            }
        }
        let length = buffer.len().min(self.chunk.len() - self.position);
        buffer[..length].copy_from_slice(&self.chunk[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_read_as_one_stream_until_an_error() {
        let (sender, receiver) = mpsc::channel(8);
        for chunk in [b"ab".to_vec(), Vec::new(), b"cde".to_vec()] {
            sender.try_send(Ok(chunk)).unwrap();
        }
        drop(sender);
        let mut text = String::new();
        ChunkReader {
            receiver,
            chunk: Vec::new(),
            position: 0,
        }
        .read_to_string(&mut text)
        .unwrap();
        assert_eq!(text, "abcde");

        let (sender, receiver) = mpsc::channel(8);
        sender.try_send(Ok(b"ab".to_vec())).unwrap();
        sender.try_send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
        let mut reader = ChunkReader {
            receiver,
            chunk: Vec::new(),
            position: 0,
        };
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }
}
