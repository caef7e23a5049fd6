//! Entries as lines for people.

use std::fmt;

use crate::entry::{Digest, Entry, Receiver};

/// On one line, with digests in hexadecimal.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = hex::encode::<&Digest>;
        match self {
            Self::Policy { digest } => write!(f, "policy {}", hex(digest)),
            Self::Fragment { issuer, feed, text, svn } => {
                write!(f, "fragment {} of issuer {}, feed {}", hex(text), hex(issuer), hex(feed))?;
                svn.map_or(Ok(()), |svn| write!(f, ", svn {svn}"))
            }
            Self::TrustList { issuer, subject, svn } => write!(f, "trust list {} of issuer {}, svn {svn}", hex(subject), hex(issuer)),
            Self::Layer { root } => write!(f, "layer {}", hex(root)),
            Self::Rootfs { container, layers } => {
                write!(f, "root file system of container {}, from the top", hex(container))?;
                layers.iter().try_for_each(|layer| write!(f, " {}", hex(layer)))
            }
            Self::RootfsRemoved { container } => write!(f, "root file system of container {} removed", hex(container)),
            Self::Create {
                container,
                command,
                sandbox,
                privileged,
            } => {
                let privileged = if *privileged { "privileged " } else { "" };
                let sandbox = if *sandbox { ", the pod's sandbox" } else { "" };
                write!(
                    f,
                    "create {privileged}container {}, command {}{sandbox}",
                    hex(container),
                    hex(command)
                )
            }
            Self::Start { container } => write!(f, "start container {}", hex(container)),
            Self::Exec { container, command } => write!(f, "exec in container {}, command {}", hex(container), hex(command)),
            Self::External { command } => write!(f, "exec in the guest, command {}", hex(command)),
            Self::Signal {
                container,
                signal,
                receiver,
            } => {
                let receiver = match receiver {
                    Receiver::Init => "the init",
                    Receiver::Exec => "an exec",
                    Receiver::All => "every process",
                };
                write!(f, "signal {signal} to {receiver} of container {}", hex(container))
            }
            Self::End { container } => write!(f, "end container {}", hex(container)),
            Self::Remove { container } => write!(f, "remove container {}", hex(container)),
            Self::Other { point, subject } => {
                write!(f, "{}", point.as_str())?;
                subject.as_ref().map_or(Ok(()), |subject| write!(f, " {}", hex(subject)))
            }
            Self::Outcome { of, done } => write!(f, "{of} {}", if *done { "is done" } else { "failed" }),
            Self::Exit { of, status } => write!(f, "the process of {of} exited with {status}"),
            Self::PowerOff => f.write_str("power off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Point;

    #[test]
    fn an_entry_is_one_line_with_whole_digests() {
        let (a, b) = ([0xaa; 32], [0xbb; 32]);
        let (of_a, of_b) = ("aa".repeat(32), "bb".repeat(32));
        let shown = |entry: Entry| entry.to_string();
        assert_eq!(shown(Entry::Layer { root: a }), format!("layer {of_a}"));
        let layers = vec![b, a];
        assert_eq!(
            shown(Entry::Rootfs { container: a, layers }),
            format!("root file system of container {of_a}, from the top {of_b} {of_a}")
        );
        let point = Point::named("scratch_mount").unwrap();
        assert_eq!(shown(Entry::Other { point, subject: None }), "scratch_mount");
        assert_eq!(shown(Entry::Outcome { of: 3, done: false }), "3 failed");
    }
}
