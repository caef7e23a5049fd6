//! Which registries a section is for: whole labels at the end of a name, so that `evilghcr.io` is never under `ghcr.io`.

use crate::name::{RegistryName, normal};

/// A key of `registries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    written: String,
    names: Names,
}

/// The names that a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    /// `.`: all.
    All,
    /// `corp`: the name and those below it.
    From(Vec<String>),
    /// `.corp`: those below the name.
    Below(Vec<String>),
    /// A label is empty: none.
    Never(String),
}

/// The part of a section in the choice for one registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its settings apply, and no other section's.
    Chosen,
    /// It applies too, and another is more specific.
    LessSpecific,
    /// It is for names below the registry's, because of its leading dot.
    OnlyBelow,
    /// The registry has a port, which is part of its last label.
    Port,
    /// A label of the key is empty, so that it never applies.
    Never,
    /// It is for other registries.
    OtherNames,
}

impl Standing {
    /// Why the section is or is not chosen.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Chosen => "chosen: the most specific that applies",
            Self::LessSpecific => "applies, but another is more specific, and sections do not merge",
            Self::OnlyBelow => "its leading dot takes only names below",
            Self::Port => "the image names a port, and so must the key",
            Self::Never => "an empty label: it never applies",
            Self::OtherNames => "for other registries",
        }
    }
}

impl Key {
    /// From the text in the file.
    pub(crate) fn new(written: &str) -> Self {
        let labels = |name: &str| name.split('.').map(str::to_owned).collect::<Vec<_>>();
        let text = normal(written);
        let (name, below) = match text.strip_prefix('.') {
            Some(name) => (name, true),
            None => (text.as_str(), false),
        };
        let names = match written {
            "." => Names::All,
            _ if name.split('.').any(str::is_empty) => Names::Never(text),
            _ if below => Names::Below(labels(name)),
            _ => Names::From(labels(name)),
        };
        Self {
            written: written.to_owned(),
            names,
        }
    }

    /// As the file has it.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// Whether both stand for the same names, so that neither is more specific.
    pub(crate) fn same_names(&self, other: &Self) -> bool {
        self.names == other.names
    }

    pub(crate) fn applies_to(&self, registry: &RegistryName) -> bool {
        let ends_with = |labels: &[String], more: usize| {
            let name: Vec<&str> = registry.as_str().split('.').collect();
            name.len() >= labels.len() + more && name.iter().rev().zip(labels.iter().rev()).all(|(name, label)| name == label)
        };
        match &self.names {
            Names::All => true,
            Names::From(labels) => ends_with(labels, 0),
            Names::Below(labels) => ends_with(labels, 1),
            Names::Never(_) => false,
        }
    }

    /// More labels first; with equal labels the one with the leading dot, which is for less names.
    pub(crate) fn specificity(&self) -> (usize, bool) {
        match &self.names {
            Names::All | Names::Never(_) => (0, false),
            Names::From(labels) => (labels.len(), false),
            Names::Below(labels) => (labels.len(), true),
        }
    }

    /// Why it does not apply.
    pub(crate) fn why_not(&self, registry: &RegistryName) -> Standing {
        let without_port = registry.as_str().rsplit_once(':').map(|(host, _)| RegistryName::new(host));
        match &self.names {
            Names::Never(_) => Standing::Never,
            Names::Below(labels) if registry.as_str() == labels.join(".") => Standing::OnlyBelow,
            _ if without_port.is_some_and(|host| self.applies_to(&host)) => Standing::Port,
            _ => Standing::OtherNames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applies(key: &str, registry: &str) -> bool {
        Key::new(key).applies_to(&RegistryName::new(registry))
    }

    #[test]
    fn whole_labels_at_the_end_decide() {
        for (key, at, below, beside) in [
            ("registry.corp.", true, true, false),
            ("registry.corp", true, true, false),
            ("Registry.CORP", true, true, false),
            (".registry.corp.", false, true, false),
            (".corp.", true, true, true),
            ("corp", true, true, true),
            (".", true, true, true),
            ("..corp", false, false, false),
            ("..", false, false, false),
            ("a..corp", false, false, false),
        ] {
            assert_eq!(applies(key, "registry.corp"), at, "{key}");
            assert_eq!(applies(key, "eu.registry.corp"), below, "{key}");
            assert_eq!(applies(key, "other.corp"), beside, "{key}");
        }
        assert!(!applies("ghcr.io.", "evilghcr.io"));
    }

    #[test]
    fn a_port_is_part_of_the_last_label() {
        for (key, expected) in [
            ("r.corp.", false),
            (".corp.", false),
            (".", true),
            ("r.corp:5000", true),
            ("r.corp:5001", false),
        ] {
            assert_eq!(applies(key, "r.corp:5000"), expected, "{key}");
        }
        assert_eq!(Key::new("r.corp").why_not(&RegistryName::new("r.corp:5000")), Standing::Port);
    }

    proptest! {
        /// What applies is a suffix of whole labels, and of two keys that apply one is more specific unless they are the same.
        #[test]
        fn keys_that_apply_have_an_order(a in r"\.?([ab]\.){0,3}[ab]?\.?", b in r"\.?([ab]\.){0,3}[ab]?\.?", name in r"([ab]\.){0,4}[ab]") {
            let (a, b, name) = (Key::new(&a), Key::new(&b), RegistryName::new(&name));
            if a.applies_to(&name) {
                let suffix = normal(a.as_written());
                prop_assert!(format!(".{name}").ends_with(suffix.as_str()), "{a:?} {name}");
                if b.applies_to(&name) && a.specificity() == b.specificity() {
                    prop_assert!(a.same_names(&b), "{a:?} {b:?} {name}");
                }
            }
        }
    }
}
