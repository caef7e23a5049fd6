//! Seccomp filters from tables of allowed system calls.
//!
//! A call that the table does not allow kills the process with SIGSYS (`SECCOMP_RET_KILL_PROCESS`), so no signal handler and
//! no code of an attacker runs after it. The kernel logs the call (audit record type 1326).

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::{collections::BTreeMap, sync::Arc};

/// Why a filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table is invalid.
    #[error("cannot compile a system call filter")]
    Compile(#[source] seccompiler::BackendError),
    /// `seccomp(2)` failed.
    #[error("cannot install a system call filter; the kernel needs CONFIG_SECCOMP_FILTER")]
    Install(#[source] seccompiler::Error),
}

/// A compiled filter; clones share it.
#[derive(Clone, Debug)]
pub struct Filter(Arc<BpfProgram>);

/// One allowed system call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    number: libc::c_long,
    only: &'static [Condition],
    /// When it is needed, if that depends on the host or on timing so that the test cannot trigger it.
    pub untested: Option<&'static str>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    argument: u8,
    is: Is,
}

#[derive(Clone, Copy, Debug)]
enum Is {
    Equal(u64),
    Without(u64),
    OwnProcess,
    FirstRealTimeSignal,
}

/// Allows a system call with any arguments.
pub const fn rule(name: &'static str, number: libc::c_long) -> Rule {
    Rule {
        name,
        number,
        only: &[],
        untested: None,
    }
}

/// Allows one request of `ioctl(2)`.
pub const fn ioctl(name: &'static str, request: &'static [Condition]) -> Rule {
    rule(name, libc::SYS_ioctl).only(request)
}

impl Rule {
    /// Allows it only where every condition holds.
    pub const fn only(mut self, only: &'static [Condition]) -> Self {
        self.only = only;
        self
    }

    /// Says why the test cannot trigger it.
    pub const fn untested(mut self, why: &'static str) -> Self {
        self.untested = Some(why);
        self
    }
}

/// The argument is this 32-bit value.
pub const fn equal(argument: u8, value: u64) -> Condition {
    Condition {
        argument,
        is: Is::Equal(value),
    }
}

/// The argument has none of these bits.
pub const fn without(argument: u8, bits: u64) -> Condition {
    Condition {
        argument,
        is: Is::Without(bits),
    }
}

/// The argument is this process's id.
pub const fn own_process(argument: u8) -> Condition {
    Condition {
        argument,
        is: Is::OwnProcess,
    }
}

/// The argument is `SIGRTMIN`.
pub const fn first_real_time_signal(argument: u8) -> Condition {
    Condition {
        argument,
        is: Is::FirstRealTimeSignal,
    }
}

/// No memory becomes executable: for `mmap` and `mprotect`.
pub const NOT_EXECUTABLE: &[Condition] = &[without(2, libc::PROT_EXEC as u64)];

impl Filter {
    /// Allows the system calls in `rules`; any other kills the process.
    ///
    /// # Errors
    /// When a rule is invalid.
    pub fn allowing<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<Self, FilterError> {
        let mut by_number = BTreeMap::<i64, Vec<SeccompRule>>::new();
        for rule in rules {
            let alternatives = by_number.entry(rule.number).or_default();
            if !rule.only.is_empty() {
                alternatives.push(rule.compile().map_err(FilterError::Compile)?);
            }
        }
        Self::compile(by_number, SeccompAction::KillProcess, SeccompAction::Allow)
    }

    /// Answers one call with `ENOSYS`, as a kernel without it would, and allows the others: installed before a filter that
    /// allows it, because of all filters' answers the strictest counts.
    ///
    /// # Errors
    /// When the filter cannot be compiled.
    pub fn absent(number: libc::c_long) -> Result<Self, FilterError> {
        let only = BTreeMap::from([(number, Vec::new())]);
        Self::compile(only, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
    }

    fn compile(by_number: BTreeMap<i64, Vec<SeccompRule>>, otherwise: SeccompAction, matching: SeccompAction) -> Result<Self, FilterError> {
        SeccompFilter::new(by_number, otherwise, matching, TargetArch::x86_64)
            .and_then(BpfProgram::try_from)
            .map(|program| Self(Arc::new(program)))
            .map_err(FilterError::Compile)
    }

    /// Installs the filter for the calling thread; it cannot be removed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install(&self) -> Result<(), FilterError> {
        apply_filter(&self.0).map_err(FilterError::Install)
    }
}

impl Rule {
    /// Whether `self` makes `other` pointless or the other way round: a rule without conditions next to one with conditions.
    pub fn overrides(&self, other: &Self) -> bool {
        self.number == other.number && (self.only.is_empty() || other.only.is_empty())
    }

    fn compile(&self) -> Result<SeccompRule, seccompiler::BackendError> {
        let conditions = self.only.iter().map(|condition| {
            let (length, operator, value) = match condition.is {
                Is::Equal(value) => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value),
                Is::Without(bits) => (SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), 0),
                Is::OwnProcess => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, std::process::id().into()),
                Is::FirstRealTimeSignal => (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::SIGRTMIN() as u64),
            };
            SeccompCondition::new(condition.argument, length, operator, value)
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?)
    }
}
