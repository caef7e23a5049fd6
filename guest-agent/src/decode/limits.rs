//! New limits of a container: converts OCI's numbers (config-linux.md, "Control groups") to those of cgroup v2.

use container_document::{Cpu, Memory, Pids, Resources};

use policy::action;

use super::DecodeError;

/// Range of cgroup v1's `cpu.shares`, from which weights are computed (kernel/sched/sched.h, `MIN_SHARES` and `MAX_SHARES`).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// `cpu.max` period in microseconds (kernel/sched/core.c, `min_cfs_quota_period` and `max_cfs_quota_period`).
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// Default period in microseconds (cgroup-v2.rst, `cpu.max`).
const DEFAULT_PERIOD: u64 = 100_000;
/// Smallest quota in microseconds (kernel/sched/core.c, `min_cfs_quota_period`).
const MIN_QUOTA: i64 = 1_000;

/// A checked limit: a file of the cgroup and its new text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Limits(Vec<(&'static str, String)>);

impl Limits {
    /// Files of the cgroup, each with its new text.
    pub fn files(&self) -> &[(&'static str, String)] {
        &self.0
    }

    /// The limits as numbers, which is how a policy judges them; `None` is no limit.
    pub fn values(&self) -> action::Limits {
        let value = |text: &str| match text.split_once(' ') {
            // Quota and period, in CPU time per default period.
            Some((quota, period)) => {
                let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
                Some(quota.saturating_mul(DEFAULT_PERIOD) / period.max(1))
            }
            None => text.parse().ok(),
        };
        self.0.iter().map(|(file, text)| ((*file).to_owned(), value(text))).collect()
    }
}

impl TryFrom<&Resources> for Limits {
    type Error = DecodeError;

    /// Swap is ignored: the guest has none, so any limit on it is met.
    fn try_from(resources: &Resources) -> Result<Self, DecodeError> {
        let mut files = Vec::new();
        if let Some(Memory { limit, reservation, .. }) = &resources.memory {
            files.extend(amount("memory.limit", *limit)?.map(|text| ("memory.max", text)));
            files.extend(amount("memory.reservation", *reservation)?.map(|text| ("memory.low", text)));
        }
        if let Some(cpu) = &resources.cpu {
            files.extend(weight(cpu)?.map(|text| ("cpu.weight", text)));
            files.extend(bandwidth(cpu)?.map(|text| ("cpu.max", text)));
        }
        if let Some(Pids { limit }) = &resources.pids {
            files.extend(amount("pids.limit", *limit)?.map(|text| ("pids.max", text)));
        }
        Ok(Self(files))
    }
}

/// 0 leaves the limit unchanged, -1 removes it.
fn amount(field: &'static str, value: Option<i64>) -> Result<Option<String>, DecodeError> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some("max".to_owned())),
        Some(number @ 1..) => Ok(Some(number.to_string())),
        Some(_) => Err(DecodeError::Spec {
            field,
            reason: "it is less than -1",
        }),
    }
}

/// The linear map of shares to weights 1 to 10000 that OCI runtimes use.
fn weight(cpu: &Cpu) -> Result<Option<String>, DecodeError> {
    match cpu.shares {
        None | Some(0) => Ok(None),
        Some(shares) if SHARES.contains(&shares) => {
            let weight = 1 + (shares - SHARES.start()) * 9_999 / (SHARES.end() - SHARES.start());
            Ok(Some(weight.to_string()))
        }
        Some(_) => Err(DecodeError::Spec {
            field: "cpu.shares",
            reason: "it is outside 2 to 262144",
        }),
    }
}

fn bandwidth(cpu: &Cpu) -> Result<Option<String>, DecodeError> {
    let period = match cpu.period.filter(|period| *period != 0) {
        None => None,
        Some(period) if PERIOD.contains(&period) => Some(period),
        Some(_) => {
            return Err(DecodeError::Spec {
                field: "cpu.period",
                reason: "it is outside 1000 to 1000000",
            });
        }
    };
    let quota = match cpu.quota.filter(|quota| *quota != 0) {
        None if period.is_none() => return Ok(None),
        None | Some(-1) => "max".to_owned(),
        Some(quota) if quota >= MIN_QUOTA => quota.to_string(),
        Some(_) => {
            return Err(DecodeError::Spec {
                field: "cpu.quota",
                reason: "it is less than 1000",
            });
        }
    };
    Ok(Some(format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(json: &str) -> Result<Limits, DecodeError> {
        Limits::try_from(&serde_json::from_str::<Resources>(json).unwrap())
    }

    #[test]
    fn numbers_become_those_of_cgroup_v2() {
        let all = r#"{"memory":{"limit":67108864,"reservation":-1,"swap":67108864},"cpu":{"shares":1024,"quota":50000},
            "pids":{"limit":10},"devices":[{"allow":true}]}"#;
        let files = [
            ("memory.max", "67108864"),
            ("memory.low", "max"),
            // As runc computes it from 1024.
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "10"),
        ];
        assert_eq!(
            limits(all).unwrap(),
            Limits(files.iter().map(|(file, text)| (*file, (*text).to_owned())).collect())
        );
        assert_eq!(limits("{}").unwrap(), Limits(vec![]));
        let values = limits(all).unwrap().values();
        assert_eq!(
            (values["memory.max"], values["memory.low"], values["cpu.max"]),
            (Some(67_108_864), None, Some(50_000))
        );
        let half = r#"{"cpu":{"quota":1000000,"period":1000000}}"#;
        assert_eq!(limits(half).unwrap().values()["cpu.max"], Some(100_000), "one CPU");
        let none = r#"{"memory":{"limit":0},"cpu":{"shares":0,"quota":0,"period":0},"pids":{"limit":0}}"#;
        assert_eq!(limits(none).unwrap(), Limits(vec![]));
        let unlimited = r#"{"cpu":{"quota":-1,"period":50000}}"#;
        assert_eq!(limits(unlimited).unwrap(), Limits(vec![("cpu.max", "max 50000".to_owned())]));
    }

    #[test]
    fn numbers_that_the_kernel_would_reject_are_refused() {
        for bad in [
            r#"{"memory":{"limit":-2}}"#,
            r#"{"memory":{"reservation":-5}}"#,
            r#"{"cpu":{"shares":1}}"#,
            r#"{"cpu":{"shares":262145}}"#,
            r#"{"cpu":{"period":999}}"#,
            r#"{"cpu":{"period":1000001}}"#,
            r#"{"cpu":{"quota":999}}"#,
            r#"{"cpu":{"quota":-2}}"#,
            r#"{"pids":{"limit":-2}}"#,
        ] {
            assert!(limits(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn weights_stay_in_the_kernels_range(shares in SHARES) {
            let cpu = Cpu { shares: Some(shares), ..Cpu::default() };
            let weight: u64 = weight(&cpu).unwrap().unwrap().parse().unwrap();
            prop_assert!((1..=10_000).contains(&weight));
        }
    }
}
