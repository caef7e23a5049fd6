//! Kernels built from Debian's source with a fragment of configuration, cached by everything that can change them.

use super::{
    Kernel, first_line,
    pack::pack,
    run,
    source::{PACKAGE, Source},
};
use crate::hash::{read_hex, sha256_file};
use crate::{cache, progress::Step};
use anyhow::{Context, Result, bail, ensure};
use guest_manifest::Input;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Part of the cache key; changes with build steps that neither the recipe nor the compiler reflects.
const STEPS: &str = "packed and divided";

/// How a kernel is built.
#[derive(Debug)]
pub struct Recipe {
    /// Whose kernel it is, for messages.
    pub name: &'static str,
    /// File name of the fragment.
    pub fragment_name: &'static str,
    /// What the configuration has beyond `tinyconfig`, and what it must not have.
    pub fragment: &'static str,
    /// A change to the source.
    pub change: Option<Change>,
    /// Object files of a build, for the progress line only.
    pub objects: usize,
    /// CPU minutes of a build, for the progress line only.
    pub minutes: usize,
}

/// A change to one file of the source: a text that occurs in it once, and what takes its place.
#[derive(Debug)]
pub struct Change {
    /// The file, from the tree's root.
    pub file: &'static str,
    /// The text.
    pub before: &'static str,
    /// Its replacement.
    pub after: &'static str,
}

impl Recipe {
    /// The kernel from the cache, or built.
    pub fn obtain(&self) -> Result<Kernel> {
        let compiler = first_line(Command::new("gcc").arg("--version")).context("building a kernel needs gcc: `make setup` installs it")?;
        let source = Source::choose()?;
        let dir = cache::root()?.join("kernel").join(self.key(&source.version, &compiler));
        let vmlinux = dir.join("vmlinux");
        let hash_file = dir.join("source.sha256");
        if !vmlinux.exists() || !hash_file.exists() {
            self.build(&source, &dir)?;
        }
        let fragment = dir.join(self.fragment_name);
        cache::write_whole(&fragment, self.fragment.as_bytes())?;
        let inputs = vec![
            Input {
                name: format!("{PACKAGE} {}", source.version),
                sha256: read_hex(&hash_file)?,
            },
            Input {
                name: self.fragment_name.to_owned(),
                sha256: sha256_file(&fragment)?,
            },
        ];
        Ok(Kernel {
            vmlinux,
            modules: Vec::new(),
            inputs,
            compiler,
        })
    }

    fn key(&self, version: &str, compiler: &str) -> String {
        let mut parts = vec![STEPS, version, self.fragment, compiler];
        if let Some(change) = &self.change {
            parts.extend([change.file, change.before, change.after]);
        }
        cache::key(&parts.into_iter().map(str::as_bytes).collect::<Vec<_>>())
    }

    fn build(&self, source: &Source, dir: &Path) -> Result<()> {
        let work = dir.join("build");
        let _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        let (tree, sha256) = source.unpack(&work)?;
        if let Some(change) = &self.change {
            change.apply(&tree)?;
        }
        let fragment = work.join(self.fragment_name);
        std::fs::write(&fragment, self.fragment)?;
        run(kbuild(&tree).args(["-s", "tinyconfig"]))?;
        run(Command::new("scripts/kconfig/merge_config.sh")
            .args(["-m", ".config"])
            .arg(&fragment)
            .current_dir(&tree))?;
        run(kbuild(&tree).args(["-s", "olddefconfig"]))?;
        self.check_config(&std::fs::read_to_string(tree.join(".config"))?)?;
        self.compile(&tree)?;

        let linked = tree.join("vmlinux");
        let linked = std::fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
        cache::write_whole(&dir.join("vmlinux"), &pack(&linked)?)?;
        cache::write_whole(&dir.join("source.sha256"), sha256.as_bytes())?;
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
    }

    /// Checks that the configuration has every option that the fragment sets, and none that it unsets. kconfig silently drops an
    /// option whose dependency is missing, and adds one that another option selects.
    fn check_config(&self, config: &str) -> Result<()> {
        let has = |line: &str| config.lines().any(|l| l == line);
        let left_out = |line: &'static str| {
            line.strip_suffix("=n")
                .or_else(|| line.strip_prefix("# ")?.strip_suffix(" is not set"))
        };
        let lost: Vec<&str> = self
            .fragment
            .lines()
            .filter(|l| match left_out(l) {
                Some(name) => config.lines().any(|c| c.strip_prefix(name).is_some_and(|rest| rest == "=y")),
                None if l.starts_with("CONFIG_") => !has(l),
                None => false,
            })
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        bail!(
            "the kernel configuration differs from {} in {}: a dependency is missing, or another option selects it",
            self.fragment_name,
            lost.join(", ")
        )
    }

    fn compile(&self, tree: &Path) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let Self {
            name, objects, minutes, ..
        } = self;
        let mut step = Step::start(format!(
            "building the {name} kernel on {cores} cores (about {minutes} CPU minutes, once)"
        ));
        let log = tree.join("casemate-build.log");
        let errors = std::fs::File::create(&log)?;
        let mut make = kbuild(tree)
            .arg(format!("-j{cores}"))
            .arg("vmlinux")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot run make")?;
        let mut built = 0;
        let output = make.stdout.take().context("make has no output")?;
        for line in BufReader::new(output).lines() {
            if line?.starts_with("  CC ") {
                built += 1;
                step.at(format_args!("{built} of about {objects} files"));
            }
        }
        if !make.wait()?.success() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(20).collect();
            bail!(
                "the kernel build failed:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        step.done();
        Ok(())
    }
}

impl Change {
    fn apply(&self, tree: &Path) -> Result<()> {
        let file = tree.join(self.file);
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = text.matches(self.before).count();
        ensure!(
            found == 1,
            "{} of the kernel has the text to be changed {found} times, not once",
            self.file
        );
        std::fs::write(&file, text.replacen(self.before, self.after, 1)).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// `make` in the kernel tree, with the settings that make builds reproducible.
fn kbuild(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(tree)
        .env("KBUILD_BUILD_TIMESTAMP", "2026-01-01T00:00:00Z")
        .env("KBUILD_BUILD_USER", "casemate")
        .env("KBUILD_BUILD_HOST", "casemate")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    make
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: Recipe = Recipe {
        name: "test",
        fragment_name: "test.fragment",
        fragment: "CONFIG_DM_VERITY=y\nCONFIG_SWAP=n\n# a remark\n# CONFIG_IO_URING is not set\n",
        change: None,
        objects: 0,
        minutes: 0,
    };
    const CHANGE: Change = Change {
        file: "a.c",
        before: "old",
        after: "new",
    };

    #[test]
    fn a_lost_option_is_named() {
        RECIPE.check_config("CONFIG_DM_VERITY=y\n").unwrap();
        for (config, named) in [
            ("", "CONFIG_DM_VERITY=y"),
            ("CONFIG_DM_VERITY=y\nCONFIG_IO_URING=y\n", "CONFIG_IO_URING"),
            ("CONFIG_DM_VERITY=y\nCONFIG_SWAP=y\n", "CONFIG_SWAP"),
        ] {
            let error = RECIPE.check_config(config).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("test.fragment"), "{error}");
        }
    }

    #[test]
    fn what_changes_the_kernel_changes_its_key() {
        let changed = Recipe {
            change: Some(CHANGE),
            ..RECIPE
        };
        let keys = [RECIPE.key("1", "gcc"), RECIPE.key("2", "gcc"), changed.key("1", "gcc")];
        assert!(keys[0] != keys[1] && keys[0] != keys[2], "{keys:?}");
    }

    #[test]
    fn a_text_is_changed_only_if_it_occurs_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.c");
        assert!(CHANGE.apply(dir.path()).is_err());
        for (text, after) in [("an old text", Some("an new text")), ("old, old", None), ("none", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(CHANGE.apply(dir.path()).is_ok(), after.is_some(), "{text}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), after.unwrap_or(text));
        }
    }
}
