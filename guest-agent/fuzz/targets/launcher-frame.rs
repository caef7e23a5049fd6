//! The bytes on the socket between agent and launcher, read by either end. The first byte chooses the end.
#![no_main]

use launcher_protocol::{Answer, Request, receive, send};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, io::Write, os::unix::net::UnixStream};

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..0x80, frame)) => read::<Request>(frame),
        Some((_, frame)) => read::<Answer>(frame),
        None => {}
    }
});

/// What was understood is understood in the same way when it is sent on.
fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(frame: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(frame).unwrap();
    drop(theirs);
    let Ok((document, _)) = receive::<T>(&ours) else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&theirs, &document, None).unwrap();
    assert_eq!(receive::<T>(&ours).unwrap().0, document);
}
