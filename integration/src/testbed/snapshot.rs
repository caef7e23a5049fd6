//! Saved machines: one with containerd running, and one with our build unpacked and the images imported.

use super::{
    accel::Accel,
    build::Image,
    machine::{JOB_DISK_BYTES, Limits, Machine, Memory, Start},
};
use crate::testbed::{host, job::Job};
use anyhow::{Context, Result, bail};
use guest_image::{cache, progress::Step};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Prepared snapshots kept per suite; older ones are deleted.
const KEPT: usize = 2;
/// Time limit for unpacking the job and importing the images.
const PREPARE: Limits = Limits {
    quiet: Duration::from_secs(120),
    total: Duration::from_secs(300),
};

/// What the machines of one run start from.
pub struct Testbed {
    image: Image,
    accel: Accel,
    job: Job,
    /// Absent if machines boot afresh: on KVM a boot takes two seconds.
    prepared: Option<PathBuf>,
}

impl Testbed {
    /// A testbed with `job` unpacked and prepared.
    pub fn prepare(image: Image, accel: Accel, job: Job) -> Result<Self> {
        let prepared = match accel {
            Accel::Kvm => None,
            Accel::Tcg(_) | Accel::Counted => Some(prepared(&image, &accel, &job)?),
        };
        Ok(Self {
            image,
            accel,
            job,
            prepared,
        })
    }

    /// How its machines' processors are provided.
    pub fn accel(&self) -> &Accel {
        &self.accel
    }

    /// A prepared machine with its files in `dir`.
    pub fn machine(&self, dir: &Path) -> Result<Machine> {
        match &self.prepared {
            Some(snapshot) => restore(
                &self.image,
                &self.accel,
                Memory::Copied(&snapshot.join("ram")),
                snapshot,
                self.job.disk(),
                dir,
            ),
            None => {
                let memory = Memory::Anonymous;
                let start = Start {
                    image: &self.image,
                    accel: &self.accel,
                    memory,
                    job: self.job.disk(),
                    resume: None,
                    dir,
                };
                let mut machine = Machine::start(&start)?;
                unpack(&mut machine, dir)?;
                Ok(machine)
            }
        }
    }
}

/// The base snapshot of an image: containerd answers, nothing else has happened. Cached by image and QEMU build.
pub fn base(image: &Image, accel: &Accel) -> Result<PathBuf> {
    let key = cache::key(&[
        image.key.as_bytes(),
        super::machine::qemu_version()?.as_bytes(),
        JOB_DISK_BYTES.to_string().as_bytes(),
        accel.processors().to_string().as_bytes(),
    ]);
    let kind = if *accel == Accel::Counted { "base-counted" } else { "base" };
    let dir = host::cache_dir("l1")?.join(format!("{kind}-{}-{key}", image.suite.name()));
    if dir.join("dev").exists() {
        return Ok(dir);
    }
    let step = Step::start(format!(
        "snapshot of {} with containerd running (ten seconds, once)",
        image.suite.name()
    ));
    let partial = fresh(&dir)?;
    std::fs::File::create(partial.join("job"))
        .and_then(|file| file.set_len(JOB_DISK_BYTES))
        .context("cannot create an empty job disk")?;
    let (ram, job, logs) = (partial.join("ram"), partial.join("job"), partial.join("boot"));
    let machine = Machine::start(&Start {
        image,
        accel,
        memory: Memory::Kept(&ram),
        job: &job,
        resume: None,
        dir: &logs,
    })?;
    machine.save(&partial.join("dev"))?;
    finish(&partial, &dir)?;
    step.done();
    Ok(dir)
}

/// The base with the job unpacked and prepared. Cached by the job's content; only the latest few are kept.
fn prepared(image: &Image, accel: &Accel, job: &Job) -> Result<PathBuf> {
    let base = base(image, accel)?;
    let base_name = base.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key = cache::key(&[base_name.as_bytes(), job.digest().as_bytes()]);
    let cache = host::cache_dir("l1")?;
    let kind = if *accel == Accel::Counted { "prepared-counted" } else { "prepared" };
    let prefix = format!("{kind}-{}-", image.suite.name());
    let dir = cache.join(format!("{prefix}{key}"));
    if dir.join("dev").exists() {
        return Ok(dir);
    }
    let step = Step::start(format!("our build and the images into {}", image.suite.name()));
    keep_newest(&cache, &prefix)?;
    let partial = fresh(&dir)?;
    let ram = partial.join("ram");
    host::run(
        Command::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(base.join("ram"))
            .arg(&ram),
    )?;
    let logs = partial.join("prepare");
    let mut machine = restore(image, accel, Memory::Kept(&ram), &base, job.disk(), &logs)?;
    unpack(&mut machine, &logs)?;
    machine.save(&partial.join("dev"))?;
    finish(&partial, &dir)?;
    step.done();
    Ok(dir)
}

fn unpack(machine: &mut Machine, logs: &Path) -> Result<()> {
    for line in ["unpack", "run /job/story prepare"] {
        let mut said = Vec::new();
        let status = machine
            .run_command(line, PREPARE, &mut |bytes| said.extend_from_slice(bytes))
            .with_context(|| format!("L1 at `{line}` (its files: {})", logs.display()))?;
        if status != 0 {
            bail!("L1 failed at `{line}` ({status}):\n{}", host::tail(&said, 4000));
        }
    }
    Ok(())
}

fn restore(image: &Image, accel: &Accel, memory: Memory<'_>, snapshot: &Path, job: &Path, dir: &Path) -> Result<Machine> {
    Machine::start(&Start {
        image,
        accel,
        memory,
        job,
        resume: Some(&snapshot.join("dev")),
        dir,
    })
}

/// An empty directory beside `dir`, to be renamed when it is complete.
fn fresh(dir: &Path) -> Result<PathBuf> {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(name);
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    Ok(partial)
}

fn finish(partial: &Path, dir: &Path) -> Result<()> {
    match std::fs::rename(partial, dir) {
        // Another run has made the same snapshot in the meantime: either will do.
        Err(_) if dir.join("dev").exists() => std::fs::remove_dir_all(partial).context("cannot remove a spare snapshot"),
        result => result.with_context(|| format!("cannot rename to {}", dir.display())),
    }
}

fn keep_newest(cache: &Path, prefix: &str) -> Result<()> {
    let entries = std::fs::read_dir(cache)
        .context("cannot list the cache")?
        .filter_map(|entry| entry.ok());
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    let surplus = found.len().saturating_sub(KEPT);
    for (_, old) in &found[..surplus] {
        std::fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(())
}
