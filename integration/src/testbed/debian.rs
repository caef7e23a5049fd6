//! Debian packages of a suite that may differ from the host's: a private apt (lists, cache, status) that uses the
//! host's mirror and does not change the host's configuration.

use crate::testbed::host;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian suites for L1, each with its version of containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Debian 12, containerd 1.6.
    Bookworm,
    /// Debian 13, containerd 1.7.
    Trixie,
    /// Debian's testing suite, containerd 2.1 and later: its versions are those of the day.
    Forky,
}

impl Suite {
    /// The suite's name in Debian's archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// Whether its packages still change.
    pub fn moves(self) -> bool {
        self == Self::Forky
    }
}

/// A suite of Debian, with its security updates.
pub struct Archive {
    suite: String,
    dir: PathBuf,
}

impl Archive {
    /// Sets up the private apt of `suite` (`bookworm`, `trixie`); downloads nothing yet.
    pub fn open(suite: &str) -> Result<Self> {
        let dir = host::cache_dir(&format!("apt/{suite}"))?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}/{sub}", dir.display()))?;
        }
        std::fs::write(dir.join("sources.list"), source_lines(suite)?).context("cannot write the private sources.list")?;
        std::fs::write(dir.join("status"), "").context("cannot write the private status file")?;
        Ok(Self {
            suite: suite.to_owned(),
            dir,
        })
    }

    /// The suite's name.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// The private `sources.list`.
    pub fn sources(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    /// Fetches the package lists.
    pub fn refresh(&self) -> Result<()> {
        host::run(self.apt("apt-get").args(["-qq", "update"]))
            .with_context(|| format!("cannot read the package lists of {}", self.suite))?;
        Ok(())
    }

    /// The newest package whose name matches `pattern` (a POSIX regular expression over the whole name).
    pub fn newest(&self, pattern: &str) -> Result<String> {
        let found = host::run(self.apt("apt-cache").args(["search", "--names-only", &format!("^{pattern}$")]))?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        names
            .max_by_key(|name| version_key(name))
            .map(str::to_owned)
            .with_context(|| format!("{} has no package {pattern}", self.suite))
    }

    /// The versions of `packages`, one `name version` a line, as the package lists know them.
    pub fn versions(&self, packages: &[&str]) -> Result<String> {
        let mut versions = String::new();
        for package in packages {
            let listed = host::run(self.apt("apt-cache").args(["madison", package]))?;
            let newest = listed.lines().next().and_then(|line| line.split('|').nth(1));
            let newest = newest.with_context(|| format!("{} has no package {package}", self.suite))?;
            versions.push_str(&format!("{package} {}\n", newest.trim()));
        }
        Ok(versions)
    }

    /// Downloads packages into `into`; returns their files in the order asked for.
    pub fn download(&self, packages: &[&str], into: &Path) -> Result<Vec<PathBuf>> {
        std::fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
        host::run(self.apt("apt-get").current_dir(into).args(["-qq", "download"]).args(packages))
            .with_context(|| format!("cannot download packages of {}", self.suite))?;
        packages.iter().map(|package| newest_file(into, &format!("{package}_"))).collect()
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State={dir}"),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::State::Status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            // apt would run the download as user _apt, who cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// `deb` lines of a suite and its security updates, with the mirrors of the host's own apt.
pub fn source_lines(suite: &str) -> Result<String> {
    let (main, security) = mirrors()?;
    // The lists of a suite that moves are valid for a week, and a mirror may be behind by more.
    let options = if suite == Suite::Forky.name() {
        format!("signed-by={KEYRING} check-valid-until=no")
    } else {
        format!("signed-by={KEYRING}")
    };
    Ok(format!(
        "deb [{options}] {main} {suite} main\ndeb [{options}] {security} {suite}-security main\n"
    ))
}

/// The URIs of the host's Debian and Debian security mirrors.
pub fn mirrors() -> Result<(String, String)> {
    let targets = || host::run(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Origin: Debian"]));
    let mut text = targets()?;
    if text.trim().is_empty() {
        // A fresh container has no package lists.
        host::run(Command::new("apt-get").args(["-qq", "update"]))?;
        text = targets()?;
    }
    from_targets(&text).context("apt knows no Debian mirror: this needs a Debian host with a Debian source in /etc/apt")
}

fn from_targets(text: &str) -> Result<(String, String)> {
    let pairs: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let Some((main, _)) = pairs.iter().find(|(_, codename)| !codename.contains('-')) else {
        bail!("no suite without a suffix among the sources");
    };
    let main = main.trim_end_matches('/');
    let security = match pairs.iter().find(|(_, codename)| codename.ends_with("-security")) {
        Some((uri, _)) => uri.trim_end_matches('/').to_owned(),
        None => format!("{main}-security"),
    };
    Ok((main.to_owned(), security))
}

/// The newest file in `dir` whose name begins with `prefix`.
fn newest_file(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let files = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let newest = files.max_by_key(|entry| version_key(&entry.file_name().to_string_lossy()));
    newest
        .map(|entry| entry.path())
        .with_context(|| format!("no {prefix}*.deb was downloaded to {}", dir.display()))
}

/// Compares names with numbers in them by the numbers' values: 6.12.9 before 6.12.10.
fn version_key(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        assert!(version_key("linux-image-6.12.107+deb13") > version_key("linux-image-6.12.95+deb13"));
    }

    #[test]
    fn the_mirror_is_the_plain_suites() {
        let text = "http://m/debian/ bookworm-backports\nhttp://m/debian-security/ bookworm-security\nhttp://m/debian/ bookworm\n";
        assert_eq!(
            from_targets(text).unwrap(),
            ("http://m/debian".to_owned(), "http://m/debian-security".to_owned())
        );
        assert_eq!(from_targets("http://m/debian/ trixie\n").unwrap().1, "http://m/debian-security");
        assert!(from_targets("http://m/debian/ bookworm-updates\n").is_err());
    }
}
