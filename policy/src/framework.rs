//! The rules that policies refer to as `data.framework.<point>`: one file of Rego per enforcement point.

/// Names of the metadata that the framework itself keeps, declared in `framework/metadata.rego`.
pub(crate) const METADATA: &[&str] = &[
    "devices",
    "fragment_parameters",
    "issuers",
    "matches",
    "operatingsystem",
    "overlayTargets",
    "p9mounts",
    "rw_devices",
    "scratch_mounts",
    "started",
];

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// File name and text of each module.
        pub(crate) const MODULES: &[(&str, &str)] = &[
            $((concat!("framework/", $name, ".rego"), include_str!(concat!("framework/", $name, ".rego")))),*
        ];
    };
}

modules!["metadata", "versions"];
