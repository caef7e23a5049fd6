//! New limits of a running container.

use agent_protocol::UpdateContainerRequest;
use policy::ContainerId;

use container_document::Resources;

use super::{DecodeError, Limits, container_id, json};

/// Container and its new limits.
pub fn update(request: &UpdateContainerRequest) -> Result<(ContainerId, Limits), DecodeError> {
    let resources: Resources = json("resources", &request.resources)?;
    Ok((container_id(&request.container_id)?, Limits::try_from(&resources)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_protocol::limits::SPEC_BYTES;

    fn request(resources: &[u8]) -> UpdateContainerRequest {
        UpdateContainerRequest {
            container_id: "web".to_owned(),
            resources: resources.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_resources_document_is_accepted() {
        assert!(update(&request(br#"{"memory":{"limit":4096}}"#)).is_ok());
        for bad in [
            &b""[..],
            b"[]",
            b"{\"memory\":{\"limit\":\"4096\"}}",
            b"{\"pids\":{\"limit\":-7}}",
            b"\xff",
        ] {
            assert!(update(&request(bad)).is_err(), "{bad:?}");
        }
        assert!(matches!(
            update(&request(&vec![b' '; SPEC_BYTES + 1])),
            Err(DecodeError::TooLong { .. })
        ));
        let mut elsewhere = request(b"{}");
        elsewhere.container_id = "../web".to_owned();
        assert!(matches!(update(&elsewhere), Err(DecodeError::Id { .. })));
    }
}
