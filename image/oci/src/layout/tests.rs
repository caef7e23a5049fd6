//! Layouts in a temporary directory.

use super::*;
use serde_json::json;

struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        Self { dir }
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        std::fs::write(self.dir.path().join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        digest.to_string()
    }

    fn image(&self, layers: usize, diff_ids: usize) -> String {
        let diff_id = format!("sha256:{}", "ab".repeat(32));
        let config = json!({"config": {"Env": ["A=1"], "Cmd": ["sh"], "User": "7"}, "rootfs": {"diff_ids": vec![diff_id; diff_ids]}});
        let config = self.blob(config.to_string().as_bytes());
        let layer = self.blob(b"layer");
        let manifest = json!({"config": {"digest": config}, "layers": vec![json!({"digest": layer}); layers]});
        self.blob(manifest.to_string().as_bytes())
    }

    fn index(&self, manifests: serde_json::Value) {
        std::fs::write(self.dir.path().join("index.json"), json!({"manifests": manifests}).to_string()).unwrap();
    }

    fn open(&self, tag: Option<&str>) -> Result<Image, LayoutError> {
        OciLayout::new(self.dir.path()).image(tag)
    }
}

#[test]
fn an_image_is_found_by_tag_and_through_an_index() {
    let layout = Layout::new();
    let manifest = layout.image(2, 2);
    let other = json!({"digest": format!("sha256:{}", "00".repeat(32)), "platform": {"os": "linux", "architecture": "arm64"}});
    let inner = json!({"manifests": [other, {"digest": manifest, "platform": {"os": "linux", "architecture": "amd64"}}]});
    let inner = layout.blob(inner.to_string().as_bytes());
    layout.index(json!([{"digest": inner, "mediaType": "application/vnd.oci.image.index.v1+json",
        "annotations": {"org.opencontainers.image.ref.name": "demo"}}]));
    let image = layout.open(Some("demo")).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.config.user, "7");
    assert!(matches!(layout.open(Some("other")), Err(LayoutError::NotFound { .. })));
}

#[test]
fn changed_content_is_refused() {
    let layout = Layout::new();
    let manifest = layout.image(1, 1);
    layout.index(json!([{"digest": manifest}]));
    layout.open(None).unwrap();
    let path = layout.dir.path().join("blobs/sha256").join(manifest.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(b' ');
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(layout.open(None), Err(LayoutError::Content(_))));
}

#[test]
fn layers_and_diff_ids_must_pair() {
    let layout = Layout::new();
    layout.index(json!([{"digest": layout.image(2, 1)}]));
    assert!(matches!(
        layout.open(None),
        Err(LayoutError::Image(_, ImageError::Layers { blobs: 2, diff_ids: 1 }))
    ));
}

#[test]
fn nested_indexes_are_limited() {
    let layout = Layout::new();
    let media = "application/vnd.oci.image.index.v1+json";
    let mut inner = layout.blob(br#"{"manifests":[]}"#);
    for _ in 0..10 {
        inner = layout.blob(json!({"manifests": [{"digest": inner, "mediaType": media}]}).to_string().as_bytes());
    }
    layout.index(json!([{"digest": inner, "mediaType": media}]));
    assert!(matches!(layout.open(None), Err(LayoutError::NotFound { .. })));
}

#[test]
fn as_many_indexes_as_allowed_lead_to_the_manifest() {
    let layout = Layout::new();
    let mut inner = layout.image(1, 1);
    for _ in 0..INDEXES_MAX {
        inner = layout.blob(json!({"manifests": [{"digest": inner}]}).to_string().as_bytes());
    }
    layout.index(json!([{"digest": inner}]));
    assert_eq!(layout.open(None).unwrap().layers.len(), 1);
}

#[test]
fn a_document_may_not_be_larger_than_the_limit() {
    let layout = Layout::new();
    std::fs::write(layout.dir.path().join("index.json"), vec![b' '; DOCUMENT_MAX_BYTES + 1]).unwrap();
    assert!(matches!(layout.open(None), Err(LayoutError::TooLarge(_))));
    std::fs::write(layout.dir.path().join("index.json"), vec![b' '; DOCUMENT_MAX_BYTES]).unwrap();
    assert!(matches!(layout.open(None), Err(LayoutError::Document(..))));
}
