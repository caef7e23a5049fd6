//! A client of containerd's gRPC services: containers, images, snapshots, and blobs.

use super::converter::Blob;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, ListImagesRequest, PluginsRequest, ReadContentRequest, ReadContentResponse,
    containers_client::ContainersClient,
    content_client::ContentClient,
    images_client::ImagesClient,
    introspection_client::IntrospectionClient,
    snapshots::{MountsRequest, StatSnapshotRequest, snapshots_client::SnapshotsClient},
};
use futures_util::Stream;
use oci::{Digest, limits::DOCUMENT_MAX_BYTES};
use std::{
    fs::File,
    future::poll_fn,
    io::{self, PipeWriter},
    path::PathBuf,
    pin::Pin,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::unix::pipe::Sender};
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

/// Timeout of unary calls.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The gRPC header that carries the namespace.
const NAMESPACE_HEADER: &str = "containerd-namespace";

/// Why a request to containerd failed.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// containerd's socket is not reachable.
    #[error("cannot reach containerd at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    /// The namespace is not a valid header value.
    #[error("{0:?} is not a namespace")]
    Namespace(String),
    /// A call failed.
    #[error("containerd cannot {doing}: {}", status.message())]
    Call {
        /// The request.
        doing: String,
        /// containerd's reply.
        status: Box<Status>,
    },
    /// A reply without its content.
    #[error("containerd's reply is empty: {0}")]
    Empty(String),
    /// The image was removed.
    #[error("image {0} is no longer in containerd; its layers cannot be read")]
    NoImage(String),
    /// The content store lacks a part of the image.
    #[error(
        "{digest} of the image is not in containerd's content store: pull the image again, with discard_unpacked_layers = false in containerd's \
         configuration"
    )]
    NoBlob {
        /// Digest of the missing part.
        digest: String,
    },
    /// A document larger than any image needs.
    #[error("document {0} of the image is longer than {DOCUMENT_MAX_BYTES} bytes")]
    Long(String),
    /// A layer in the store cannot be read.
    #[error("cannot read {} from the content store", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// No pipe for a stream from containerd.
    #[error("cannot make a pipe for a layer")]
    Pipe(#[source] io::Error),
}

/// The image and snapshot of a container.
pub struct FoundContainer {
    /// Name of the image; empty if it has none.
    pub image: String,
    /// What keeps its snapshot.
    pub snapshotter: String,
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
        request.set_timeout(TIMEOUT);
        request
    }

    /// Looks up a container.
    pub async fn container(&self, id: &str) -> Result<FoundContainer, ContentError> {
        let doing = || format!("look up container {id}");
        let request = self.unary(GetContainerRequest { id: id.to_owned() });
        let reply = ContainersClient::new(self.channel.clone())
            .get(request)
            .await
            .map_err(failed(doing()))?;
        let container = reply.into_inner().container.ok_or_else(|| ContentError::Empty(doing()))?;
        Ok(FoundContainer {
            image: container.image,
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
        })
    }

    /// The digest that an image's name points to.
    pub async fn image_target(&self, name: &str) -> Result<String, ContentError> {
        let request = self.unary(GetImageRequest { name: name.to_owned() });
        match ImagesClient::new(self.channel.clone()).get(request).await {
            Err(status) if status.code() == Code::NotFound => Err(ContentError::NoImage(name.to_owned())),
            Err(status) => Err(failed(format!("look up image {name}"))(status)),
            Ok(reply) => {
                let target = reply.into_inner().image.and_then(|image| image.target);
                target
                    .map(|t| t.digest)
                    .ok_or_else(|| ContentError::Empty(format!("look up image {name}")))
            }
        }
    }

    /// Names of the images that point to a digest.
    pub async fn names_of(&self, target: &Digest) -> Result<Vec<String>, ContentError> {
        let request = self.unary(ListImagesRequest {
            filters: vec![format!("target.digest==\"{target}\"")],
        });
        let reply = ImagesClient::new(self.channel.clone()).list(request).await;
        let images = reply
            .map_err(failed(format!("list the names of image {target}")))?
            .into_inner()
            .images;
        Ok(images.into_iter().map(|image| image.name).collect())
    }

    /// The snapshot below a container's: the chain id of its image's layers, unless somebody has changed files in between.
    pub async fn snapshot_parent(&self, container: &FoundContainer) -> Result<String, ContentError> {
        self.parent(&container.snapshotter, &container.snapshot_key).await
    }

    /// Whether `snapshot`, which a container's lies on, is the image of this chain id with a change of its own.
    pub async fn is_changed(&self, container: &FoundContainer, snapshot: &str, chain_id: &str) -> bool {
        let parent = self.parent(&container.snapshotter, snapshot).await;
        parent.is_ok_and(|parent| parent == chain_id)
    }

    async fn parent(&self, snapshotter: &str, snapshot: &str) -> Result<String, ContentError> {
        let doing = || format!("look up snapshot {snapshot} of snapshotter {snapshotter}");
        let message = StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: snapshot.to_owned(),
        };
        let reply = SnapshotsClient::new(self.channel.clone())
            .stat(self.unary(message))
            .await
            .map_err(failed(doing()))?;
        reply
            .into_inner()
            .info
            .map(|info| info.parent)
            .ok_or_else(|| ContentError::Empty(doing()))
    }

    /// Options of the mounts of a container's snapshot.
    pub async fn mount_options(&self, container: &FoundContainer) -> Result<Vec<String>, ContentError> {
        let (snapshotter, key) = (container.snapshotter.clone(), container.snapshot_key.clone());
        let doing = format!("list the mounts of snapshot {key} of snapshotter {snapshotter}");
        let request = self.unary(MountsRequest { snapshotter, key });
        let reply = SnapshotsClient::new(self.channel.clone()).mounts(request).await;
        let mounts = reply.map_err(failed(doing))?.into_inner().mounts;
        Ok(mounts.into_iter().flat_map(|mount| mount.options).collect())
    }

    /// Reads an index, manifest or config.
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

    /// Opens a blob: the content store's file if it is visible, otherwise a stream from containerd.
    pub async fn blob(&self, digest: &Digest) -> Result<Blob, ContentError> {
        if let Some(path) = self.store().await.map(|root| root.join("blobs/sha256").join(digest.hex())) {
            match File::open(&path) {
                Ok(file) => {
                    return Ok(Blob {
                        input: file.into(),
                        feed: None,
                    });
                }
                // The content store is elsewhere, or a plugin: containerd can read it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(ContentError::Read(path, e)),
            }
        }
        let stream = self.read(&digest.to_string()).await?;
        let (input, pipe) = io::pipe().map_err(ContentError::Pipe)?;
        Ok(Blob {
            input: input.into(),
            feed: Some(Box::pin(copy(stream, pipe))),
        })
    }

    async fn read(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, ContentError> {
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

    /// Directory of the local content store, as its plugin reports it.
    async fn store(&self) -> Option<PathBuf> {
        let message = PluginsRequest {
            filters: vec!["type==io.containerd.content.v1,id==content".to_owned()],
        };
        let reply = IntrospectionClient::new(self.channel.clone())
            .plugins(self.unary(message))
            .await
            .ok()?;
        let plugin = reply.into_inner().plugins.into_iter().next()?;
        plugin.exports.get("root").map(PathBuf::from)
    }
}

fn failed(doing: String) -> impl FnOnce(Status) -> ContentError {
    move |status| ContentError::Call {
        doing,
        status: Box::new(status),
    }
}

/// Copies a blob into a pipe. That nobody reads it any more is no failure: whoever did says why.
async fn copy(mut chunks: impl Stream<Item = Result<ReadContentResponse, Status>> + Unpin, pipe: PipeWriter) -> io::Result<()> {
    let mut pipe = Sender::from_owned_fd(pipe.into())?;
    while let Some(chunk) = poll_fn(|context| Pin::new(&mut chunks).poll_next(context)).await {
        match pipe.write_all(&chunk.map_err(io::Error::other)?.data).await {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        task::{Context, Poll},
    };

    /// A stream of these chunks.
    struct Chunks(std::vec::IntoIter<Result<&'static str, Status>>);

    impl Stream for Chunks {
        type Item = Result<ReadContentResponse, Status>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let response = |text: &str| ReadContentResponse {
                data: text.into(),
                ..Default::default()
            };
            Poll::Ready(self.0.next().map(|chunk| chunk.map(response)))
        }
    }

    async fn copied(chunks: Vec<Result<&'static str, Status>>, pipe: PipeWriter) -> io::Result<()> {
        copy(Chunks(chunks.into_iter()), pipe).await
    }

    #[tokio::test]
    async fn chunks_are_one_stream_until_an_error() {
        let (mut end, pipe) = io::pipe().unwrap();
        copied(vec![Ok("ab"), Ok(""), Ok("cde")], pipe).await.unwrap();
        let mut text = String::new();
        end.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");

        let (_end, pipe) = io::pipe().unwrap();
        let broken = copied(vec![Ok("ab"), Err(Status::unavailable("containerd stops"))], pipe).await;
        assert!(broken.unwrap_err().to_string().contains("containerd stops"));

        let (end, pipe) = io::pipe().unwrap();
        drop(end);
        copied(vec![Ok("nobody reads this")], pipe).await.unwrap();
    }
}
