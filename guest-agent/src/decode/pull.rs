//! An image that the guest is to pull.

use agent_protocol::{PullImageRequest, limits::IMAGE_BYTES};
use container_document::refuse;
use oci::Reference;
use policy::{ContainerId, action::PullImage};

use super::{DecodeError, sandbox_id};

/// An image to pull.
#[derive(Debug)]
pub struct PullOrder {
    pub sandbox: ContainerId,
    pub action: PullImage,
}

impl TryFrom<PullImageRequest> for PullOrder {
    type Error = DecodeError;

    /// The name is completed, and its registry in lower case, so that a policy sees one spelling of each.
    fn try_from(request: PullImageRequest) -> Result<Self, DecodeError> {
        let PullImageRequest { sandbox_id: id, image, .. } = request;
        if image.len() > IMAGE_BYTES {
            refuse("image", "it is longer than 512 bytes")?;
        }
        const { assert!(IMAGE_BYTES == 512, "kept for the text of the error") };
        let sandbox = sandbox_id(&id)?;
        // The parser's own message quotes the text.
        let malformed = |_| DecodeError::Spec {
            field: "image",
            reason: "it is not an image reference",
        };
        let reference: Reference = image.parse().map_err(malformed)?;
        let Some(digest) = reference.digest() else {
            return Err(DecodeError::Spec {
                field: "image",
                reason: "it has no digest: append @sha256: and the digest of the image that is meant",
            });
        };
        let registry = reference.registry().to_ascii_lowercase();
        Ok(Self {
            sandbox,
            action: PullImage {
                image: format!("{registry}/{}@{digest}", reference.repository()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(image: &str) -> Result<String, DecodeError> {
        let order = PullOrder::try_from(PullImageRequest {
            sandbox_id: "pod".to_owned(),
            image: image.to_owned(),
            ..Default::default()
        });
        order.map(|order| order.action.image)
    }

    #[test]
    fn an_image_has_one_spelling_and_a_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (asked, named) in [
            (format!("R.Corp./team/app:v1@{digest}"), format!("r.corp/team/app@{digest}")),
            (format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
            (
                format!("index.docker.io/nginx@{digest}"),
                format!("docker.io/library/nginx@{digest}"),
            ),
            (format!("R.corp:5000/a@{digest}"), format!("r.corp:5000/a@{digest}")),
        ] {
            assert_eq!(order(&asked).unwrap(), named);
        }
        for bad in ["", "r.corp/app", "r.corp/app:v1", "r.corp/App@sha256:a", "a b", &"a".repeat(513)] {
            let error = order(bad).unwrap_err().to_string();
            assert!(error.starts_with("image: "), "{bad}: {error}");
        }
        let twice = format!("a@{digest}@{digest}");
        assert!(order(&twice).is_err());
    }
}
