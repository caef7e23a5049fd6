//! Slots for disks that are attached to a running VM.

use super::SpecError;
use serde::{Deserialize, Serialize};

/// Slots that are empty at boot, disks of capacity 0, and take files by [`crate::control::Request::AttachDisk`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volumes {
    /// How many. The tables of a VM that has any describe more devices, so the launch of its guest has another digest; how many makes no
    /// difference to that.
    pub slots: VolumeSlots,
    /// Longest regular file in bytes that may be attached for writing: a process can make no file longer than a limit that it gives itself
    /// before it meets the guest. No limit for block devices, which do not grow.
    #[serde(default)]
    pub file_bytes: u64,
}

/// Number of volume slots, 0 to 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct VolumeSlots(u8);

impl VolumeSlots {
    /// None.
    pub const NONE: Self = Self(0);
    /// Most of a VM.
    pub const MAX: u8 = 4;

    /// The count.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for VolumeSlots {
    type Error = SpecError;
    fn try_from(n: u8) -> Result<Self, SpecError> {
        if n <= Self::MAX {
            Ok(Self(n))
        } else {
            Err(SpecError::VolumeSlots(n))
        }
    }
}

impl From<VolumeSlots> for u8 {
    fn from(n: VolumeSlots) -> u8 {
        n.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_four_volume_slots_at_most() {
        let parse = |text| serde_json::from_str::<Volumes>(text);
        assert_eq!(parse(r#"{"slots":0}"#).unwrap(), Volumes::default());
        assert_eq!(parse(r#"{"slots":4,"file_bytes":512}"#).unwrap().slots.get(), 4);
        for wrong in [
            r#"{"slots":5}"#,
            r#"{"slots":-1}"#,
            r#"{"file_bytes":512}"#,
            r#"{"slots":1,"files":1}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
