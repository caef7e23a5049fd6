//! What policies for other guests may allow and this guest does not support: it is judged, and then refused with an alternative.
//!
//! The permits are dropped, so the policy's state does not change.

use policy::{
    Permit,
    action::{MountBlockdev, Plan9Mount, Plan9Unmount, UnmountBlockdev},
};

use super::StorageError;

/// A directory of the host.
pub fn mount_share(permit: Permit<'_, Plan9Mount>) -> StorageError {
    drop(permit);
    StorageError::NoShares
}

/// No directory of the host is ever mounted.
pub fn unmount_share(permit: Permit<'_, Plan9Unmount>) -> StorageError {
    drop(permit);
    StorageError::Absent("the shared directory".to_owned())
}

/// A disk of the host.
pub fn attach_disk(permit: Permit<'_, MountBlockdev>) -> StorageError {
    drop(permit);
    StorageError::NoDisk("containers")
}

/// No disk is ever attached.
pub fn detach_disk(permit: Permit<'_, UnmountBlockdev>) -> StorageError {
    drop(permit);
    StorageError::Absent("the disk".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Enforcer, OPEN_DOOR};

    #[test]
    fn the_reason_names_an_alternative_and_only_an_allowed_caller_gets_it() {
        let mut enforcer = Enforcer::new(OPEN_DOOR).unwrap();
        let target = crate::paths::share(&policy::ContainerId::new("c"), 0);
        let refused = mount_share(enforcer.enforce(Plan9Mount::new(target.clone())).unwrap());
        assert!(refused.to_string().contains("image"), "{refused}");
        let mut closed = Enforcer::new("package policy\napi_version := \"0.12.0\"\n").unwrap();
        let denied = closed.enforce(Plan9Mount::new(target)).map(drop).unwrap_err();
        assert!(!denied.to_string().contains("9p"), "{denied}");
    }
}
