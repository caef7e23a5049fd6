//! The testbed's command line: sets the host up, builds L1 and the images, tells stories, opens a prompt.

use anyhow::{bail, Context, Result};
use clap::{Parser, Subcommand};
use integration::{
    host, images,
    job::{Build, Job},
    l1::{accel, build, snapshot, Suite},
    runner::{self, Task},
    setup, shell,
    stories::{self, Runtime},
    summary::{self, Summary},
};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "testbed", about = "A Debian machine with a working /dev/kvm, and the stories told in it")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the Debian packages that build and tests need, saying which
    Setup {
        /// Only say what is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the machine's disk, kernel and initrd (cached)
    Build {
        /// Debian suite
        #[arg(long, value_enum)]
        suite: Suite,
    },
    /// Build the container images of demo and stories (cached)
    Image,
    /// Boot once to "containerd answers" and save that (cached)
    Snapshot {
        /// Debian suite
        #[arg(long, value_enum)]
        suite: Suite,
    },
    /// Tell stories, each in a machine of its own
    #[command(after_help = "Examples:\n  testbed run --suite trixie\n  testbed run --suite bookworm --runtime runc exit-code stdin-eof")]
    Run {
        #[command(flatten)]
        place: Place,
        /// Machines at once
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only on this runtime
        #[arg(long, value_enum)]
        runtime: Option<Runtime>,
        /// Names of stories (`testbed stories` lists them); none: all
        stories: Vec<String>,
    },
    /// List the stories
    Stories,
    /// Show the whole thread: containerd, shim, VMM, agent and a verdict
    Demo {
        #[command(flatten)]
        place: Place,
    },
    /// Open a prompt in the machine, with the build installed and the images imported
    Shell {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
struct Place {
    /// Debian suite of the machine
    #[arg(long, value_enum, default_value = "bookworm")]
    suite: Suite,
    /// Directory of the guest image (vmlinux, initramfs.cpio, manifest.json); default: `guest` in the cache
    #[arg(long)]
    guest: Option<PathBuf>,
    /// Directory of the programs; default: where this one lies
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where logs and results go
    #[arg(long, default_value = "target/testbed")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match act(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup { check: true } => setup::check()?,
        Verb::Setup { check: false } => setup::install()?,
        Verb::Build { suite } => println!("{}", build::obtain(suite)?.disk().display()),
        Verb::Image => {
            for file in images::obtain()?.files {
                println!("{}", file.display());
            }
        }
        Verb::Snapshot { suite } => {
            let image = build::obtain(suite)?;
            match accel::choose(&image)? {
                accel::Accel::Kvm => println!("no snapshot: with the host's KVM a boot takes two seconds"),
                accel => println!("{}", snapshot::base(&image, &accel)?.display()),
            }
        }
        Verb::Run { place, jobs, runtime, stories } => return run(&place, jobs, runtime, &stories),
        Verb::Stories => {
            for story in stories::ALL {
                let runtimes: Vec<_> = story.runtimes.iter().map(|r| r.short()).collect();
                println!("{:28} {:14} {}", story.name, runtimes.join(", "), story.about);
            }
        }
        Verb::Demo { place } => return integration::demo::show(&testbed(&place, true)?, &place.out.join("demo")).map(status),
        Verb::Shell { place } => return shell::run(&testbed(&place, false)?, &place.out.join("shell")).map(status),
    }
    Ok(ExitCode::SUCCESS)
}

fn status(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn testbed(place: &Place, needs_build: bool) -> Result<snapshot::Testbed> {
    let beside = std::env::current_exe().context("cannot find this program")?;
    let programs = place.programs.clone().or_else(|| beside.parent().map(PathBuf::from)).context("this program lies nowhere")?;
    let guest = match &place.guest {
        Some(dir) => dir.clone(),
        None => host::cache_dir("guest")?,
    };
    let build = Build { programs, guest };
    let missing = build.missing();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|file| file.display().to_string()).collect();
        if needs_build {
            bail!("not built yet: {}", names.join(", "));
        }
        eprintln!("casemate itself is not in the machine, not built yet: {}", names.join(", "));
    }
    let image = build::obtain(place.suite)?;
    let accel = accel::choose(&image)?;
    eprintln!("    test machine: Debian {}, {}", place.suite.name(), accel.describe());
    let images = images::obtain()?;
    let job = Job::pack(&build, &images, &place.out)?;
    snapshot::Testbed::prepare(image, accel, job)
}

fn run(place: &Place, jobs: usize, runtime: Option<Runtime>, names: &[String]) -> Result<ExitCode> {
    for name in names {
        if !stories::ALL.iter().any(|story| story.name == *name) {
            bail!("no story is called {name}; `testbed stories` lists them");
        }
    }
    let tasks: Vec<Task> = stories::ALL
        .iter()
        .filter(|story| names.is_empty() || names.iter().any(|name| story.name == *name))
        .flat_map(|story| story.runtimes.iter().map(move |&runtime| Task { story, runtime }))
        .filter(|task| runtime.is_none_or(|wanted| wanted == task.runtime))
        .collect();
    let needs_build = tasks.iter().any(|task| task.runtime == Runtime::Casemate);
    let testbed = testbed(place, needs_build)?;
    let mut summary = Summary::new(place.suite.name());
    let done = runner::tell_all(&testbed, &tasks, jobs, &place.out.join(place.suite.name()), &|done| eprintln!("{}", summary::line(done)));
    summary.add_all(done);
    print!("{}", summary.table());
    Ok(if summary.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
