//! The testbed's command line: builds L1 and the images, runs stories, opens a prompt.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use integration::{
    bench,
    cache_resets::{self, Cuts},
    hardware::{self, Verdict},
    lab::{Runtime, Set},
    runner::{
        self, Task, items, suites,
        summary::{self, Summary},
    },
    stories::{
        self,
        story::{self, DEBIANS},
    },
    testbed::{
        accel, build,
        debian::Suite,
        host, images,
        job::{Build, Job},
        kvm_probe, shell, snapshot,
    },
};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(
    name = "testbed",
    about = "A Debian machine with a working /dev/kvm, and the stories that run in it"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
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
    /// Run stories
    #[command(after_help = "Examples:\n  testbed run --suite trixie\n  testbed run --suite bookworm --runtime runc exit-code stdin-eof")]
    Run {
        #[command(flatten)]
        place: Place,
        /// Number of machines that run at the same time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Run on this runtime only
        #[arg(long, value_enum)]
        runtime: Option<Runtime>,
        #[command(flatten)]
        extent: Extent,
        /// Names of stories (`testbed stories` lists them); default: all
        stories: Vec<String>,
    },
    /// Run every suite: unit tests, conformance vectors, the stories on each Debian; the last lines count what ran
    Test {
        #[command(flatten)]
        place: Place,
        /// Number of machines that run at the same time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Seed of the random choices in stories; default: a new one each time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// As `test`, with every round of every story
    TestAll {
        #[command(flatten)]
        place: Place,
        /// Number of machines that run at the same time
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Seed of the random choices in stories; default: a new one each time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run the VMM's tests of private memory, in a machine whose KVM has it
    PrivateMemory {
        #[command(flatten)]
        place: Place,
    },
    /// Cut the power of a machine that converts layers, again and again: no layer in its cache is wrong afterwards
    CacheResets {
        #[command(flatten)]
        place: Place,
        /// How often
        #[arg(long, default_value_t = cache_resets::COUNT)]
        count: u32,
        /// Seed of the random choices; default: a new one each time
        #[arg(long)]
        seed: Option<u64>,
    },
    /// List the stories
    Stories,
    /// Run one container from containerd to the agent, and show what the policy decides
    Demo {
        #[command(flatten)]
        place: Place,
        /// What its guest is protected by: with `simulated`, its report is verified
        #[arg(long, value_enum, default_value_t)]
        tee: integration::demo::Tee,
        /// A pod of two containers by the kubelet's protocol, with a network, instead of one container by `ctr`
        #[arg(long, conflicts_with = "tee")]
        pod: bool,
    },
    /// Run Debian's registry with the token service, and show who may push into a protected repository
    RegistryDemo {
        /// Directory of the programs; default: the directory of this program
        #[arg(long)]
        programs: Option<PathBuf>,
    },
    /// Measure Casemate and comparable programs: a table here, the same figures in bench.json
    Bench {
        #[command(flatten)]
        place: Place,
        /// Where the figures are written
        #[arg(long, default_value = bench::JSON)]
        json: PathBuf,
        /// Names of benchmarks; default: all
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(bench::names()))]
        benchmarks: Vec<String>,
    },
    /// Run stories with SEV-SNP guests on this host itself; exit code 77 if it cannot run them
    SnpTest {
        #[command(flatten)]
        place: Place,
        /// Names of stories; default: all
        stories: Vec<String>,
    },
    /// Open a prompt in the machine, with the build installed and the images imported
    Shell {
        #[command(flatten)]
        place: Place,
    },
}

// No `///` here: clap would use it as the command's description.
#[derive(Clone, Copy, clap::Args)]
struct Extent {
    /// A few rounds of each story, or all
    #[arg(long, value_enum, default_value = "short")]
    set: Set,
    /// Only this part of a story that several machines share
    #[arg(long)]
    part: Option<u32>,
    /// Seed of the random choices in stories; default: a new one each time
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, clap::Args)]
struct Place {
    /// Debian suite of the machine
    #[arg(long, value_enum, default_value = "bookworm")]
    suite: Suite,
    /// Directory of the guest image (vmlinux, initramfs.cpio, manifest.json); default: `guest` in the cache
    #[arg(long)]
    guest: Option<PathBuf>,
    /// Directory of the programs; default: the directory of this program
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
        Verb::Build { suite } => println!("{}", build::obtain(suite)?.disk().display()),
        Verb::Image => {
            for file in images::obtain()?.files {
                println!("{}", file.display());
            }
        }
        Verb::Snapshot { suite } => {
            let image = build::obtain(suite)?;
            match kvm_probe::choose(&image)? {
                accel::Accel::Kvm => println!("no snapshot needed: with the host's KVM a boot takes two seconds"),
                accel => println!("{}", snapshot::base(&image, &accel)?.display()),
            }
        }
        Verb::Run {
            place,
            jobs,
            runtime,
            extent,
            stories,
        } => return run(&place, jobs, runtime, extent, &stories),
        Verb::Test { place, jobs, seed } => return test(&place, jobs, Set::Short, seed),
        Verb::TestAll { place, jobs, seed } => return test(&place, jobs, Set::Full, seed),
        Verb::PrivateMemory { place } => {
            let suites = [private_memory(&place)];
            print!("{}", suites::table(&suites));
            return Ok(exit_code(&suites));
        }
        Verb::CacheResets { place, count, seed } => {
            let seed = seed_or_new(seed)?;
            let suites = [power_cuts(&place, Cuts { count, seed })];
            print!("{}", suites::table(&suites));
            return Ok(exit_code(&suites));
        }
        Verb::Stories => {
            for story in stories::all() {
                let runtimes: Vec<_> = story.runtimes.iter().map(|r| r.short()).collect();
                println!("{:28} {:14} {}", story.name, runtimes.join(", "), story.about);
            }
        }
        Verb::Demo { place, tee, pod } => {
            return integration::demo::show(&testbed(&place, true)?, &place.out.join("demo"), tee, pod).map(status);
        }
        Verb::RegistryDemo { programs } => integration::registry_demo::run(&beside(programs)?)?,
        Verb::Bench { place, json, benchmarks } => {
            let build = built(&place)?;
            let report = bench::run(build, place.suite, &benchmarks, &place.out.join("bench"))?;
            guest_image::cache::write_whole(&json, &report.to_json()?)?;
            print!("{}\n{} has the same figures\n", report.table(), json.display());
        }
        Verb::SnpTest { place, stories } => {
            return Ok(match hardware::run(&build_of(&place)?, &stories, &place.out.join("snp"))? {
                Verdict::Passed => ExitCode::SUCCESS,
                Verdict::Failed => ExitCode::FAILURE,
                Verdict::Unfit => ExitCode::from(hardware::UNFIT),
            });
        }
        Verb::Shell { place } => return shell::run(&testbed(&place, false)?, &place.out.join("shell")).map(status),
    }
    Ok(ExitCode::SUCCESS)
}

fn status(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The directory that was given, or this program's.
fn beside(programs: Option<PathBuf>) -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    programs
        .or_else(|| program.parent().map(PathBuf::from))
        .context("this program's path has no directory")
}

fn programs(place: &Place) -> Result<PathBuf> {
    beside(place.programs.clone())
}

fn build_of(place: &Place) -> Result<Build> {
    let programs = programs(place)?;
    let guest = match &place.guest {
        Some(dir) => dir.clone(),
        None => host::cache_dir("guest")?,
    };
    Ok(Build { programs, guest })
}

/// The complete build.
fn built(place: &Place) -> Result<Build> {
    let build = build_of(place)?;
    if let Some(missing) = build.missing().first() {
        bail!("not built yet: {}", missing.display());
    }
    Ok(build)
}

fn testbed(place: &Place, needs_build: bool) -> Result<snapshot::Testbed> {
    let build = build_of(place)?;
    let missing = build.missing();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|file| file.display().to_string()).collect();
        if needs_build {
            bail!("not built yet: {}", names.join(", "));
        }
        eprintln!("the machine runs without casemate; not built yet: {}", names.join(", "));
    }
    let image = build::obtain(place.suite)?;
    let accel = kvm_probe::choose(&image)?;
    eprintln!("    test machine: Debian {}, {}", place.suite.name(), accel.describe());
    let images = images::obtain()?;
    let job = Job::pack(&build, &images, &place.out)?;
    snapshot::Testbed::prepare(image, accel, job)
}

fn run(place: &Place, jobs: usize, runtime: Option<Runtime>, extent: Extent, names: &[String]) -> Result<ExitCode> {
    for name in names {
        if stories::find(name).is_none() {
            bail!("no story is called {name}; `testbed stories` lists them");
        }
    }
    let wanted = |task: &Task| {
        runtime.is_none_or(|wanted| wanted == task.runtime)
            && extent.part.is_none_or(|part| part == task.scope.part)
            && (names.is_empty() || names.iter().any(|n| task.story.name == *n))
    };
    let seed = seed_or_new(extent.seed)?;
    let summary = run_stories(place, jobs, extent.set, seed, wanted)?;
    print!("{}", summary.table());
    Ok(if summary.counts().failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The seed given on the command line, or a new one.
fn seed_or_new(seed: Option<u64>) -> Result<u64> {
    if let Some(seed) = seed {
        return Ok(seed);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs())
}

/// Debian suites on which stories run. The parts of a story are numbered in this order.
const SUITES: [Suite; DEBIANS as usize] = [Suite::Bookworm, Suite::Trixie, Suite::Forky];

/// Those of `set`: all, or the newest and one of the others in turn.
fn suites_of(set: Set, turn: u64) -> impl Iterator<Item = (u32, Suite)> {
    let others = SUITES.len() as u64 - 1;
    (0..)
        .zip(SUITES)
        .filter(move |(number, suite)| set == Set::Full || suite.moves() || u64::from(*number) == turn % others)
}

fn run_stories(place: &Place, jobs: usize, set: Set, seed: u64, wanted: impl Fn(&Task) -> bool) -> Result<Summary> {
    let debian = SUITES.iter().position(|suite| *suite == place.suite).unwrap_or_default() as u32;
    let tasks = stories::all().flat_map(|story| {
        let runtimes = story.runtimes.iter();
        runtimes.flat_map(move |&runtime| {
            let scopes = story.scopes(set, debian, seed).into_iter();
            scopes.map(move |scope| Task { story, runtime, scope })
        })
    });
    let mut tasks: Vec<Task> = tasks.filter(wanted).collect();
    // The stories with the longest time limits start first, so that no machine works alone at the end.
    tasks.sort_by_key(|task| std::cmp::Reverse(task.story.limit(set)));
    if tasks.is_empty() {
        bail!("no story was selected: some run in the full set only (--set full), some on one runtime");
    }
    let started = Instant::now();
    let testbed = testbed(place, tasks.iter().any(|task| task.runtime == Runtime::Casemate))?;
    let suite = place.suite.name();
    eprintln!("    stories on {suite}: --seed {seed}");
    let done = runner::run_all(&testbed, &tasks, jobs, &place.out.join(suite), &|done| {
        eprintln!("{}", summary::line(done))
    });
    Ok(Summary::of(suite, started, done))
}

fn private_memory(place: &Place) -> suites::Suite {
    let suite = build_of(place).and_then(|build| suites::private_memory(&build.guest.join("stage0"), &place.out));
    suite.unwrap_or_else(|error| suites::Suite::broken("private memory", &error))
}

fn power_cuts(place: &Place, cuts: Cuts) -> suites::Suite {
    let suite = build_of(place).and_then(|build| suites::power_cuts(&build.guest, cuts, &place.out));
    suite.unwrap_or_else(|error| suites::Suite::broken("power cuts of the cache", &error))
}

/// Runs every suite; one that fails does not prevent the next.
fn test(place: &Place, jobs: usize, set: Set, seed: Option<u64>) -> Result<ExitCode> {
    let seed = seed_or_new(seed)?;
    let mut suites = vec![suites::unit_tests(&place.out, set)?];
    suites.extend(suites::conformance(&programs(place)?, &place.out)?);
    suites.push(private_memory(place));
    let count = cache_resets::COUNT;
    suites.push(power_cuts(place, Cuts { count, seed }));
    let mut summaries = Vec::new();
    for (debian, suite) in suites_of(set, seed) {
        eprintln!("==> stories on {}", suite.name());
        let place = Place { suite, ..place.clone() };
        // A different seed on each suite.
        let seed = seed.wrapping_add(debian.into());
        suites.push(
            match run_stories(&place, jobs, set, seed, |task| story::runs_on(task.runtime, debian)) {
                Ok(summary) => {
                    let suite = suites::Suite::of_stories(&summary);
                    summaries.push(summary);
                    suite
                }
                Err(error) => suites::Suite::broken(&format!("stories on {}", suite.name()), &error),
            },
        );
    }
    suites.push(suites::secrets(&place.out).unwrap_or_else(|error| suites::Suite::broken("no secret in the output", &error)));
    let (items_table, counts, remarks) = items::judge(&summaries);
    suites.push(suites::Suite::of_items(counts, remarks));
    print!("{items_table}\n{}", suites::table(&suites));
    Ok(exit_code(&suites))
}

fn exit_code(suites: &[suites::Suite]) -> ExitCode {
    if suites::any_failed(suites) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
