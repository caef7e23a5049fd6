//! The logins that docker and podman keep on a host, for the operator's command line. The guest has none of these files.
//!
//! | order | file |
//! |---|---|
//! | 1 | `$DOCKER_CONFIG`: a directory with `config.json`, or the file itself |
//! | 2 | `$HOME/.docker/config.json` |
//! | 3 | `$REGISTRY_AUTH_FILE` |
//! | 4 | `$XDG_RUNTIME_DIR/containers/auth.json` |
//! | 5 | `$HOME/.config/containers/auth.json` |
//!
//! The first file with an entry for the registry decides, and what it lacks is not looked for in the next.

mod entry;
mod file;
mod helper;

use crate::credentials::Credentials;
use crate::name::RegistryName;
use file::{File, Found};
use std::io;
use std::path::{Path, PathBuf};

/// Largest file.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What was found for a repository.
#[derive(Debug)]
pub struct Stored {
    /// The login; none if there is no entry, or none that can be used.
    pub credentials: Credentials,
    /// Where it is from, or what was looked through.
    pub source: String,
    /// Why an entry is not used.
    pub warnings: Vec<String>,
}

/// Why the logins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoginsError {
    /// A file that a variable names cannot be read.
    #[error("cannot read {}, which {variable} names", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The variable.
        variable: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file that a variable names is none of docker or podman.
    #[error("{}, which {variable} names, cannot be used: {problem}", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The variable.
        variable: &'static str,
        /// What is wrong, without a value.
        problem: String,
    },
}

/// A place where a file may be.
struct Place {
    path: PathBuf,
    /// The variable that names it, if it must be there.
    variable: Option<&'static str>,
    /// Whether the variable's file may be absent: podman makes it with the first login.
    may_be_absent: bool,
}

/// Looks for a login. `variable` gives the process's environment.
///
/// # Errors
/// A file that a variable names cannot be read or parsed.
pub async fn look_up(variable: impl Fn(&str) -> Option<PathBuf>, registry: &RegistryName, repository: &str) -> Result<Stored, LoginsError> {
    let mut warnings = Vec::new();
    let places = places(&variable);
    for place in &places {
        let Some(file) = read(place, &mut warnings)? else { continue };
        let found = file.find(registry, repository);
        let shown = place.path.display();
        let credentials = match found {
            Found::Nothing => continue,
            Found::Login(credentials) => Ok(credentials),
            Found::Unusable(why) => Err(why),
            Found::Helper { name, server, is_store } => match helper::get(&name, &server, variable("PATH")).await {
                // Docker asks its store for every registry.
                Ok(None) if is_store => continue,
                Ok(None) => Err(format!("docker-credential-{name} has no login for {server}")),
                Ok(Some(credentials)) => Ok(credentials),
                Err(error) if is_store => {
                    warnings.push(format!("{shown}: {error}; the registry is asked without credentials"));
                    continue;
                }
                Err(error) => Err(error.to_string()),
            },
        };
        return Ok(match credentials {
            Ok(credentials) => Stored {
                credentials,
                source: format!("file {shown}"),
                warnings,
            },
            Err(why) => {
                warnings.push(format!("{shown}: {why}; the registry is asked without credentials"));
                Stored {
                    credentials: Credentials::default(),
                    source: format!("file {shown}"),
                    warnings,
                }
            }
        });
    }
    let looked: Vec<String> = places.iter().map(|place| place.path.display().to_string()).collect();
    Ok(Stored {
        credentials: Credentials::default(),
        source: match looked.is_empty() {
            true => "no file of logins: neither HOME nor DOCKER_CONFIG is set".to_owned(),
            false => format!("no login in {}", looked.join(", ")),
        },
        warnings,
    })
}

fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<Place> {
    let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let default = |path: PathBuf| Place {
        path,
        variable: None,
        may_be_absent: true,
    };
    let named = |path: PathBuf, variable, may_be_absent| Place {
        path,
        variable: Some(variable),
        may_be_absent,
    };
    let docker = set("DOCKER_CONFIG").map(|path| {
        let path = if path.is_dir() { path.join("config.json") } else { path };
        named(path, "DOCKER_CONFIG", false)
    });
    let places = [
        docker,
        set("HOME").map(|home| default(home.join(".docker/config.json"))),
        set("REGISTRY_AUTH_FILE").map(|path| named(path, "REGISTRY_AUTH_FILE", true)),
        set("XDG_RUNTIME_DIR").map(|directory| default(directory.join("containers/auth.json"))),
        set("HOME").map(|home| default(home.join(".config/containers/auth.json"))),
    ];
    places.into_iter().flatten().collect()
}

/// Reads a file; `None` if there is none, or a default one is not usable.
fn read(place: &Place, warnings: &mut Vec<String>) -> Result<Option<File>, LoginsError> {
    let bytes = match bytes(&place.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.may_be_absent => return Ok(None),
        Err(source) => match place.variable {
            Some(variable) => {
                return Err(LoginsError::Read {
                    path: place.path.clone(),
                    variable,
                    source,
                });
            }
            None => {
                warnings.push(format!("{} cannot be read, and is passed over: {source}", place.path.display()));
                return Ok(None);
            }
        },
        Ok(bytes) => bytes,
    };
    match (File::parse(&bytes), place.variable) {
        (Ok(file), _) => Ok(Some(file)),
        (Err(problem), Some(variable)) => Err(LoginsError::Form {
            path: place.path.clone(),
            variable,
            problem,
        }),
        (Err(problem), None) => {
            warnings.push(format!("{} is passed over: {problem}", place.path.display()));
            Ok(None)
        }
    }
}

fn bytes(path: &Path) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path)?;
    // Opening a pipe has waited for its writer; reading it could wait for more.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX_BYTES {
        true => Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
