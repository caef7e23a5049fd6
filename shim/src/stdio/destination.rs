//! The destination of an output, by containerd's URIs: a FIFO's path (with or without `fifo://`), `file://`, `binary://`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// Most arguments of a logging program in one URI.
const ARGUMENTS: usize = 256;

/// A destination.
#[derive(Debug, PartialEq, Eq)]
pub enum Destination {
    /// A FIFO that a client reads.
    Fifo(PathBuf),
    /// A log file, which is appended to (`ctr run --log-uri file:///var/log/web`).
    File(PathBuf),
    /// A program that reads both outputs (`--log-uri 'binary:///usr/bin/logger?key=value'`).
    Program {
        /// Its path.
        path: PathBuf,
        /// The query's keys and values, alternating.
        arguments: Vec<OsString>,
    },
}

impl Destination {
    /// Parses containerd's URI; `None` for an unknown scheme, or where it cannot be decoded.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Some(Self::Fifo(text.into()));
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = PathBuf::from(decoded(path, false)?);
        if !path.is_absolute() {
            return None;
        }
        match scheme {
            "fifo" => Some(Self::Fifo(path)),
            "file" => Some(Self::File(path)),
            "binary" => {
                let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
                let mut arguments = Vec::new();
                for pair in pairs {
                    // A key without a value is followed by an empty argument, as in containerd.
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    arguments.extend([decoded(key, true)?, decoded(value, true)?]);
                }
                (arguments.len() <= ARGUMENTS).then_some(Self::Program { path, arguments })
            }
            _ => None,
        }
    }
}

/// Percent-decoding (RFC 3986, 2.1); in a query `+` is a space. No NUL: it would end a path or an argument.
fn decoded(text: &str, query: bool) -> Option<OsString> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())??
            }
            b'+' if query => b' ',
            other => other,
        });
    }
    (!bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_schemes() {
        assert_eq!(Destination::parse("/run/fifo/out"), Some(Destination::Fifo("/run/fifo/out".into())));
        assert_eq!(Destination::parse("fifo:///run/out"), Some(Destination::Fifo("/run/out".into())));
        assert_eq!(
            Destination::parse("file:///var/log/a%20b?x=1"),
            Some(Destination::File("/var/log/a b".into()))
        );
        assert_eq!(
            Destination::parse("binary:///bin/log?--to=a%2Fb+c&-v"),
            Some(Destination::Program {
                path: "/bin/log".into(),
                arguments: ["--to", "a/b c", "-v", ""].map(Into::into).to_vec()
            })
        );
    }

    #[test]
    fn other_schemes_are_refused() {
        for bad in [
            "npipe:///x",
            "file://relative",
            "file:///a%0",
            "file:///a%+1",
            "file:///a%00b",
            "binary://",
            "binary:///x?%zz=1",
        ] {
            assert_eq!(Destination::parse(bad), None, "{bad}");
        }
    }
}
