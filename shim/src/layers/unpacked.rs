//! Layers whose blobs containerd no longer has (`discard_unpacked_layers`), from the files that it has unpacked.
//!
//! ```text
//! lower directory of the container's mount ─► walk: a tar that depends on the files alone ─► pipe ─► converter
//! ```
//! Such a layer has another root hash than the blob's: the tar's order of entries is lost, and so is what it says of directories that it
//! only implies. No policy can name that hash in advance, so these layers are for policies that name none; the guest denies the others.
//!
//! The cache has them under a key of their own ([`key`]), so that nobody who has the blob gets one.

mod archive;
mod attributes;
mod mounts;
mod walk;

pub use mounts::{Lower, lower};
pub use walk::WalkError;

use super::converter::Blob;
use oci::Digest;
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// The form of the tar, and what the key begins with. A new form gets another number.
const FORM: &str = "casemate unpacked layer 1";
/// Bytes that are written to the pipe at once.
const BUFFER: usize = 256 << 10;

/// The name in the cache of what a layer unpacks to. `chain_id` names its files over the layers below (containerd has compared them with
/// it when it unpacked them), so another container of the image finds it, and a layer of other files does not have it.
pub fn key(chain_id: &Digest) -> Digest {
    Digest::of(format!("{FORM} {chain_id}").as_bytes())
}

/// A layer to convert: its files as a tar, and the tar's digest once it was fed to its end.
///
/// # Errors
/// There is no pipe.
pub fn blob(directory: PathBuf, user_xattr: bool) -> io::Result<(Blob, Arc<OnceLock<Digest>>)> {
    let (input, pipe) = io::pipe()?;
    let fed = Arc::new(OnceLock::new());
    let known = fed.clone();
    let feed = async move {
        let walk = tokio::task::spawn_blocking(move || {
            let mut tar = Hashed {
                out: BufWriter::with_capacity(BUFFER, pipe),
                hash: Sha256::new(),
            };
            let result = walk::archive(&directory, user_xattr, walk::Limits::of_layers(), &mut tar);
            let Hashed { out, hash } = tar;
            // The rest of a tar that is cut off goes with its buffer.
            (result, out.into_parts().0, Digest::from_sha256(hash.finalize().into()))
        });
        // The pipe is open until the result is known: its end would be that of a whole tar.
        let (result, _pipe, digest) = walk.await.map_err(io::Error::other)?;
        match result {
            Ok(()) => {
                // There is one walk.
                let _ = known.set(digest);
                Ok(())
            }
            // Nobody reads it any more, and whoever did says why.
            Err(WalkError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let blob = Blob {
        input: input.into(),
        feed: Some(Box::pin(feed)),
    };
    Ok((blob, fed))
}

/// Hashes what it passes on.
struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Read};

    async fn fed(blob: Blob) -> (io::Result<()>, Vec<u8>) {
        let mut input = fs::File::from(blob.input);
        let reader = tokio::task::spawn_blocking(move || {
            let mut tar = Vec::new();
            input.read_to_end(&mut tar).map(|_| tar)
        });
        let result = blob.feed.unwrap().await;
        (result, reader.await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn the_digest_is_that_of_the_whole_tar_and_of_no_part() {
        let dir = tempfile::tempdir().unwrap();
        // More than the pipe and its buffer hold.
        fs::write(dir.path().join("file"), vec![7; 1 << 20]).unwrap();
        let (whole, digest) = blob(dir.path().to_owned(), false).unwrap();
        assert!(digest.get().is_none());
        let (result, tar) = fed(whole).await;
        result.unwrap();
        assert_eq!(digest.get(), Some(&Digest::of(&tar)));

        fs::write(dir.path().join(".wh.x"), "").unwrap();
        let (cut, digest) = blob(dir.path().to_owned(), false).unwrap();
        let (result, _) = fed(cut).await;
        assert!(result.unwrap_err().to_string().contains(".wh.x"));
        assert!(digest.get().is_none());
    }

    #[test]
    fn a_key_is_no_layers_own() {
        let chain = Digest::of(b"layer");
        assert_ne!(key(&chain), chain);
        assert_ne!(key(&chain), key(&Digest::of(b"other")));
        assert_eq!(key(&chain), Digest::of(format!("casemate unpacked layer 1 {chain}").as_bytes()));
    }
}
