//! In L1: prepares the machine, runs one story and writes its report, or runs the demo or a benchmark.

use anyhow::{Context, Result};
use clap::Parser;
use integration::{
    bench, demo,
    lab::{Ended, IMAGES, Lab, Runtime, Scope, watch::Watch},
    stories::{
        self,
        report::{Outcome, Report},
        story::Story,
    },
    testbed::images,
};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The harness fetches this directory.
const OUT: &str = "/job/out";
/// Converted layers and configuration of one story, which must not affect the next.
const PRIVATE: &[&str] = &[
    "/var/lib/casemate/layers",
    "/var/lib/casemate/scratch",
    "/var/lib/casemate/simulated",
    "/etc/casemate/config.toml",
];
const GREETING: &str = "\
PS1='casemate-l1# '
bind 'set enable-bracketed-paste off'
cat <<'end'

This is the test machine: Debian with containerd, and this build of Casemate installed. Leave with ^D.
Images: docker.io/casemate/redis:demo, docker.io/casemate/busybox:1. Try:

  ctr run --runtime io.containerd.casemate.v2 --rm -t docker.io/casemate/redis:demo try /bin/sh -c 'cat /proc/version; exec sh'

end
";

#[derive(Parser)]
#[command(name = "story", about = "Runs stories inside the test machine")]
enum Arguments {
    /// Import the images and write the greeting of the prompt
    Prepare,
    /// Run one story and write its report
    Run {
        /// Its name
        name: String,
        /// The runtime
        #[arg(long, value_enum)]
        runtime: Runtime,
        #[command(flatten)]
        scope: Scope,
    },
    /// Run one benchmark and write its figures
    Bench {
        /// Its name
        name: String,
    },
    /// Run the demo
    Demo {
        /// The container must print it
        #[arg(long)]
        nonce: String,
        /// What its guest is protected by
        #[arg(long, value_enum, default_value_t)]
        tee: demo::Tee,
        /// A pod instead of one container
        #[arg(long)]
        pod: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Arguments::Prepare => prepare(),
        Arguments::Run { name, runtime, scope } => run(&name, runtime, scope),
        Arguments::Bench { name } => bench::measure(&name),
        Arguments::Demo { nonce, tee, pod } => watch().and_then(|_watch| demo::run(&nonce, tee, pod)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("story: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn watch() -> Result<Watch> {
    Watch::over_consoles().context("cannot watch consoles")
}

fn prepare() -> Result<()> {
    for reference in images::ALL {
        let tar = Path::new(IMAGES).join(images::file_name(reference));
        Ended::of(&["ctr", "image", "import", tar.to_str().context("a path that is not UTF-8")?])?.exits_with(0)?;
        // Policies are made from the layout.
        let file = std::fs::File::open(&tar).with_context(|| format!("cannot open the image {reference}"))?;
        tar::Archive::new(file)
            .unpack(tar.with_extension(""))
            .with_context(|| format!("cannot unpack {reference}"))?;
        std::fs::remove_file(&tar).context("cannot remove an image's tar")?;
    }
    std::fs::write("/root/.bash_profile", GREETING).context("cannot write the greeting")
}

fn run(name: &str, runtime: Runtime, scope: Scope) -> Result<()> {
    let story = stories::find(name).with_context(|| format!("no story is called {name}"))?;
    clean()?;
    let _watch = watch()?;
    println!("{}: {} ({})", story.name, story.about, runtime.name());
    let started = Instant::now();
    let (outcome, message) = judge(story, runtime, scope);
    let report = Report {
        outcome,
        message,
        seconds: started.elapsed().as_secs_f32(),
    };
    println!("{:?} after {:.1} s: {}", report.outcome, report.seconds, report.message);
    if report.outcome == Outcome::Failed {
        keep_evidence();
    }
    std::fs::write(
        Path::new(OUT).join(Report::FILE),
        serde_json::to_vec(&report).context("cannot write the report")?,
    )
    .context("cannot write the report")
}

/// Removes what an earlier story in this machine may have left intentionally.
fn clean() -> Result<()> {
    for path in [OUT].iter().chain(PRIVATE) {
        let path = Path::new(path);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    std::fs::create_dir_all(OUT).context("cannot create the directory of results")
}

fn judge(story: &Story, runtime: Runtime, scope: Scope) -> (Outcome, String) {
    let result = Lab::enter(runtime).and_then(|lab| (story.run)(&lab.within(scope)));
    match result {
        Ok(()) => (Outcome::Passed, String::new()),
        Err(error) => (Outcome::Failed, format!("{error:#}")),
    }
}

/// Copies state of L1 that explains a failure to the results.
fn keep_evidence() {
    let script = "cp /run/containerd.log containerd.log; dmesg >dmesg; ps axwwf >processes; cat /proc/self/mountinfo >mounts; \
         find /run/casemate /run/containerd /var/lib/casemate -ls >files; cp -r /run/casemate casemate; ctr task list >tasks";
    let _ = Command::new("timeout").args(["10", "sh", "-c", script]).current_dir(OUT).status();
}
