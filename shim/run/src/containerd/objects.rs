//! Images, containers and leases: records that containerd keeps until they are removed, or a lease has ended.

use super::{Containerd, ContainerdError, failed, found, made};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateImageRequest, CreateRequest, DeleteContainerRequest, DeleteRequest, GetContainerRequest,
    GetImageRequest, Image, container::Runtime, containers_client::ContainersClient, images_client::ImagesClient,
    leases_client::LeasesClient,
};
use containerd_client::types::Descriptor;
use std::collections::HashMap;

/// The type of an OCI specification in a container's record (containerd, typeurl).
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The runtime that is the shim.
const RUNTIME: &str = "io.containerd.casemate.v2";
/// Label of a lease: when it ends by itself (containerd, docs/garbage-collection.md).
const EXPIRE: &str = "containerd.io/gc.expire";

impl Containerd {
    /// Digest of what an image's name points to; `None` if there is no such image.
    pub async fn image(&self, name: &str) -> Result<Option<String>, ContainerdError> {
        let doing = format!("look up image {name}");
        let request = self.unary(GetImageRequest { name: name.to_owned() });
        let answer = found(ImagesClient::new(self.channel()).get(request).await, doing.clone())?;
        let Some(answer) = answer else { return Ok(None) };
        let target = answer.into_inner().image.and_then(|image| image.target);
        target.map(|target| Some(target.digest)).ok_or(ContainerdError::Empty(doing))
    }

    /// Names an image, unless something has the name.
    pub async fn create_image(&self, name: &str, target: Descriptor) -> Result<(), ContainerdError> {
        let image = Image {
            name: name.to_owned(),
            target: Some(target),
            ..Default::default()
        };
        let request = self.unary(CreateImageRequest {
            image: Some(image),
            ..Default::default()
        });
        made(
            ImagesClient::new(self.channel()).create(request).await,
            format!("name image {name}"),
        )
    }

    /// Records a container.
    pub async fn create_container(&self, id: &str, image: &str, snapshotter: &str, spec: Vec<u8>) -> Result<(), ContainerdError> {
        let mut container = Container {
            id: id.to_owned(),
            image: image.to_owned(),
            snapshotter: snapshotter.to_owned(),
            snapshot_key: id.to_owned(),
            runtime: Some(Runtime {
                name: RUNTIME.to_owned(),
                options: None,
            }),
            ..Default::default()
        };
        let document = container.spec.get_or_insert_default();
        document.type_url = SPEC_TYPE.to_owned();
        document.value = spec;
        let request = self.unary(CreateContainerRequest {
            container: Some(container),
        });
        let answer = ContainersClient::new(self.channel()).create(request).await;
        answer.map(drop).map_err(failed(format!("create container {id}")))
    }

    /// Whether there is a container of that id.
    pub async fn has_container(&self, id: &str) -> Result<bool, ContainerdError> {
        let request = self.unary(GetContainerRequest { id: id.to_owned() });
        let answer = ContainersClient::new(self.channel()).get(request).await;
        Ok(found(answer, format!("look up container {id}"))?.is_some())
    }

    /// Removes a container's record, if there is one.
    pub async fn delete_container(&self, id: &str) -> Result<(), ContainerdError> {
        let request = self.unary(DeleteContainerRequest { id: id.to_owned() });
        let answer = ContainersClient::new(self.channel()).delete(request).await;
        found(answer, format!("remove container {id}")).map(drop)
    }

    /// Makes a lease that ends by itself at `expire` (RFC 3339).
    pub async fn create_lease(&self, id: &str, expire: String) -> Result<(), ContainerdError> {
        let request = self.unary(CreateRequest {
            id: id.to_owned(),
            labels: HashMap::from([(EXPIRE.to_owned(), expire)]),
        });
        let answer = LeasesClient::new(self.channel()).create(request).await;
        answer.map(drop).map_err(failed(format!("make lease {id}")))
    }

    /// Ends a lease, if there is one.
    pub async fn delete_lease(&self, id: &str) -> Result<(), ContainerdError> {
        let request = self.unary(DeleteRequest {
            id: id.to_owned(),
            sync: false,
        });
        let answer = LeasesClient::new(self.channel()).delete(request).await;
        found(answer, format!("end lease {id}")).map(drop)
    }
}
