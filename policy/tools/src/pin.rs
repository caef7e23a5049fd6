//! What a policy was made of: comments before its package that name images with their digests. Fragments have none: their first line
//! must be the package (hcsshim, `parseNamespace`).
//!
//! They are part of the policy's text, and so of its digest. A guest does not read them: it judges layers. Whoever starts a container
//! by an image's name compares, and can say that the name has come to mean another image.

use oci::Digest;

/// Begins the comment.
const MARK: &str = "# image ";

/// An image, and the digest of its manifest that a policy was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Its name as containerd completes it; with a digest, if it was given with one.
    pub image: String,
    /// Digest of its manifest for the guest's platform.
    pub digest: Digest,
}

/// The policy with a comment for each image.
pub fn pinned(policy: &str, pins: &[Pin]) -> String {
    let line = |pin: &Pin| {
        // A line end would begin the policy.
        let image: String = pin.image.chars().filter(|c| !c.is_control()).collect();
        format!("{MARK}{image}@{}\n", pin.digest)
    };
    pins.iter().map(line).chain([policy.to_owned()]).collect()
}

/// The images that a policy names before its package.
pub fn pins(policy: &str) -> Vec<Pin> {
    let comments = policy.lines().take_while(|line| line.is_empty() || line.starts_with('#'));
    let named = comments.filter_map(|line| line.strip_prefix(MARK)?.rsplit_once('@'));
    let pin = |(image, digest): (&str, &str)| {
        Some(Pin {
            image: image.to_owned(),
            digest: digest.trim_end().parse().ok()?,
        })
    };
    named.filter_map(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(image: &str, content: &str) -> Pin {
        Pin {
            image: image.to_owned(),
            digest: Digest::of(content.as_bytes()),
        }
    }

    #[test]
    fn a_pinned_policy_is_the_policy_that_says_what_it_was_made_of() {
        let both = [pin("docker.io/library/app:1", "a"), pin("localhost:5000/b", "b")];
        let text = pinned(policy::OPEN_DOOR, &both);
        assert!(text.ends_with(policy::OPEN_DOOR));
        assert_eq!(pins(&text), both);
        policy::Enforcer::new(&text).unwrap();
        assert!(pins(policy::OPEN_DOOR).is_empty());
    }

    #[test]
    fn an_image_cannot_write_policy() {
        let text = pinned("package policy\n", &[pin("a\npackage evil\r#", "a")]);
        assert_eq!(text.lines().count(), 2);
        assert_eq!(pins(&text)[0].image, "apackage evil#");
    }

    #[test]
    fn only_comments_before_the_package_count() {
        let late = format!("package policy\n{}", pinned("", &[pin("a", "a")]));
        assert!(pins(&late).is_empty());
        assert!(pins("# image a@sha256:00\n# image b\n# other\n").is_empty());
    }
}
