//! Which image a guest is to pull for a container: registry, repository and digest, as CRI and containerd know them.
//!
//! The host chooses, the guest judges: the policy's `pull_image` says which images it may be, and its root hashes say what may be in them.

use super::content::{Content, ContentError};
use crate::config::PULL;
use oci::{Digest, Reference, ReferenceError};
use std::fmt;

/// An image by its digest, `REGISTRY/REPOSITORY@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedImage(String);

/// Why it is not known which image the guest is to pull.
#[derive(Debug, thiserror::Error)]
pub enum GuestImageError {
    /// containerd does not answer.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The container has no image (`ctr run --rootfs`).
    #[error("container {0} was not created from an image, so the guest cannot pull it")]
    NoImage(String),
    /// The name is none that a registry could have.
    #[error("the guest cannot pull image {name:?}")]
    Name {
        /// The image's name.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// Neither the name nor containerd says which image it is.
    #[error("the guest cannot pull image {0}: its name has no digest, and containerd has no image of this name with a digest")]
    NoDigest(String),
    /// An image that is known by its digest alone.
    #[error("the guest cannot pull image {0}: containerd has it under no name, so its registry is not known")]
    Nameless(String),
    /// The guest cannot reach a registry yet.
    #[error(
        "the guest cannot pull the image of container {0}, because it has no network before the container starts: annotation {PULL} = guest \
         is for pods, and for containers in a network namespace that is there before"
    )]
    NoNetwork(String),
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PinnedImage {
    fn new(reference: &Reference, digest: Digest) -> Self {
        Self(format!("{}/{}@{digest}", reference.registry(), reference.repository()))
    }

    /// An image of any name.
    #[cfg(test)]
    pub fn of_test(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// The image of `container`. `named` is what CRI calls it; without, containerd's record of the container says.
///
/// # Errors
/// See [`GuestImageError`].
pub async fn image_of(address: &str, namespace: &str, container: &str, named: Option<&str>) -> Result<PinnedImage, GuestImageError> {
    let content = Content::connect(address, namespace).await?;
    match named.filter(|name| !name.is_empty()) {
        Some(name) => pin(&content, name).await,
        None => match content.container(container).await?.image {
            none if none.is_empty() => Err(GuestImageError::NoImage(container.to_owned())),
            name => pin(&content, &name).await,
        },
    }
}

/// containerd's images by name and by digest.
trait Images {
    /// The digest that a name points to, if there is such an image.
    async fn target(&self, name: &str) -> Result<Option<Digest>, ContentError>;
    /// Names that point to a digest.
    async fn names(&self, target: &Digest) -> Result<Vec<String>, ContentError>;
}

impl Images for Content {
    async fn target(&self, name: &str) -> Result<Option<Digest>, ContentError> {
        match self.image_target(name).await {
            Ok(target) => Ok(target.parse().ok()),
            Err(ContentError::NoImage(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn names(&self, target: &Digest) -> Result<Vec<String>, ContentError> {
        self.names_of(target).await
    }
}

async fn pin(images: &impl Images, name: &str) -> Result<PinnedImage, GuestImageError> {
    let no_digest = || GuestImageError::NoDigest(name.to_owned());
    // CRI's own name of an image, which no registry knows: the digest of its config.
    if name.parse::<Digest>().is_ok() {
        let target = images.target(name).await?.ok_or_else(no_digest)?;
        let mut names = images.names(&target).await?;
        // Whichever comes first, it must be the same one each time.
        names.sort_unstable();
        let of_registry = names.iter().filter(|name| name.parse::<Digest>().is_err());
        let reference = of_registry.filter_map(|name| name.parse::<Reference>().ok()).next();
        let reference = reference.ok_or_else(|| GuestImageError::Nameless(name.to_owned()))?;
        return Ok(PinnedImage::new(&reference, target));
    }
    let reference: Reference = name.parse().map_err(|source| GuestImageError::Name {
        name: name.to_owned(),
        source,
    })?;
    if let Some(digest) = reference.digest() {
        return Ok(PinnedImage::new(&reference, digest));
    }
    // What a pod's author wrote may be short, and containerd keeps the complete name.
    let target = match images.target(name).await? {
        Some(target) => Some(target),
        None => images.target(&reference.to_string()).await?,
    };
    Ok(PinnedImage::new(&reference, target.ok_or_else(no_digest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images by their names.
    struct Known(Vec<(String, Digest)>);

    impl Images for Known {
        async fn target(&self, name: &str) -> Result<Option<Digest>, ContentError> {
            Ok(self.0.iter().find(|(known, _)| known == name).map(|(_, target)| *target))
        }

        async fn names(&self, target: &Digest) -> Result<Vec<String>, ContentError> {
            let of_target = self.0.iter().filter(|(_, known)| known == target);
            Ok(of_target.map(|(name, _)| name.clone()).collect())
        }
    }

    fn known(names: &[(&str, &[u8])]) -> Known {
        Known(names.iter().map(|(name, image)| ((*name).to_owned(), Digest::of(image))).collect())
    }

    async fn pinned(images: &Known, name: &str) -> Result<String, String> {
        pin(images, name)
            .await
            .map(|image| image.to_string())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_gets_the_digest_of_containerds_image() {
        let images = known(&[("docker.io/library/redis:7", b"redis"), ("r.corp:5000/team/app:1", b"app")]);
        let (redis, app) = (Digest::of(b"redis"), Digest::of(b"app"));
        for name in ["redis:7", "docker.io/redis:7", "docker.io/library/redis:7"] {
            assert_eq!(
                pinned(&images, name).await,
                Ok(format!("docker.io/library/redis@{redis}")),
                "{name}"
            );
        }
        assert_eq!(
            pinned(&images, "r.corp:5000/team/app:1").await,
            Ok(format!("r.corp:5000/team/app@{app}"))
        );
        let said = pinned(&images, "redis:8").await.unwrap_err();
        assert!(
            said.contains("image redis:8: its name has no digest, and containerd has no image"),
            "{said}"
        );
        let said = pinned(&images, "Redis").await.unwrap_err();
        assert!(said.contains("\"Redis\""), "{said}");
    }

    #[tokio::test]
    async fn a_digest_in_the_name_counts_alone() {
        let (named, images) = (Digest::of(b"named"), known(&[("docker.io/library/redis:7", b"redis")]));
        for name in [format!("redis:7@{named}"), format!("docker.io/library/redis@{named}")] {
            assert_eq!(pinned(&images, &name).await, Ok(format!("docker.io/library/redis@{named}")));
        }
    }

    #[tokio::test]
    async fn an_image_that_cri_names_by_its_config_has_the_registry_of_another_name() {
        let (config, alone) = (Digest::of(b"config").to_string(), Digest::of(b"alone").to_string());
        let images = known(&[
            (&config, b"app"),
            ("r.corp/team/app:2", b"app"),
            ("r.corp/team/app:1", b"app"),
            (&alone, b"other"),
        ]);
        assert_eq!(
            pinned(&images, &config).await,
            Ok(format!("r.corp/team/app@{}", Digest::of(b"app")))
        );
        assert!(pinned(&images, &alone).await.unwrap_err().contains("under no name"));
        assert!(
            pinned(&images, &Digest::of(b"x").to_string())
                .await
                .unwrap_err()
                .contains("no digest")
        );
    }
}
