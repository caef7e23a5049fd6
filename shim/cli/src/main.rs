//! `casemate`: the operator's command line; each subcommand calls one library.
#![forbid(unsafe_code)]

mod attest;
mod config;
mod conformance_launch;
mod conformance_layers;
mod conformance_policy;
mod conformance_registry;
mod console;
mod gc;
mod host;
mod image;
mod input;
mod layer;
mod news;
mod node;
mod output;
mod policy;
mod progress;
mod pull;
mod registry;
mod run;

use agent_protocol::escaped;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Containers in policy-guarded microVMs.
#[derive(Parser)]
#[command(name = "casemate", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  casemate policy generate docker.io/library/nginx:1.27 > policy.rego
  casemate run docker.io/library/nginx:1.27
  casemate policy generate --config policy.toml > policy.rego
  casemate policy check policy.rego
  ctr run … 2>&1 | casemate policy explain --policy policy.rego
  casemate layer hash layer.tar.gz
  casemate layer prepare --namespace k8s.io docker.io/library/nginx:1.27
  casemate attest verify report.bin --certs certs --requirements verifier.toml --policy policy.rego
  casemate registry which registries.toml registry.corp/team/app:1
  casemate registry serve --config registry.toml
  casemate host check
  casemate ps --json

Exit codes: 0 success, 1 a check failed, 2 wrong usage, 3 the command failed.";

#[derive(Subcommand)]
enum Command {
    /// Generate, check, simulate and explain policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Verify SEV-SNP attestation reports
    #[command(subcommand)]
    Attest(attest::Attest),
    /// Say what this host has and lacks
    #[command(subcommand)]
    Host(host::Host),
    /// Convert OCI layers to the dm-verity images that policies name
    #[command(subcommand)]
    Layer(Layer),
    /// Say how images are pulled, and run the token service that guards a registry
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Replay conformance vectors through the production code
    #[command(subcommand)]
    Conformance(Conformance),
    /// Build the guest image
    #[command(subcommand)]
    Image(Image),
    /// Run a container under a policy that is made for it, with this terminal; nothing stays but the image
    #[command(
        after_help = "Examples:\n  casemate run docker.io/library/nginx:1.27\n  casemate run --env A=1 ./layout.tar sh -c 'echo $A'\n  \
        casemate run --print-policy nginx > nginx.rego\n  casemate run --policy nginx.rego nginx\n\nThe policy allows this process on this \
        image's layers and nothing else; it and its digest are shown on standard error. The exit code is the container's, or 125 if none ran."
    )]
    Run(run::Run),
    /// List the sandboxes of this node
    #[command(after_help = "Example:\n  casemate ps --json | jq -r '.[].id'")]
    Ps {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a program in the guest of a sandbox, outside its containers, as far as the policy's exec_external allows
    #[command(
        after_help = "Examples:\n  casemate console web                        # list the guest's diagnostics\n  \
        casemate console web -- /init show processes\n\nThe policy checks program, arguments, environment and working directory. The exit code is the \
        program's, or 125 if it was not started."
    )]
    Console(console::Console),
    /// Remove converted layers from the node's cache, by last use and size; never one that a VM uses
    #[command(
        after_help = "Examples:\n  casemate gc --unused 30d --max-size 20G\n  casemate gc --verify\n\nWithout an option it removes only what killed \
        conversions left. A layer that is needed again is converted again."
    )]
    Gc(gc::Gc),
    /// Print the counters of one sandbox's VM: KVM exits and their reasons
    #[command(after_help = "Example:\n  casemate stats web")]
    Stats {
        /// Sandbox id (for `ctr run`: the container's id)
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Layer {
    /// Convert an OCI layer (tar, tar.gz, tar.zst) to ext4 with its dm-verity tree
    #[command(after_help = "Example:\n  casemate layer convert layer.tar.gz layer.ext4")]
    Convert {
        /// The layer, or `-` for standard input
        input: PathBuf,
        /// The image to write
        output: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the dm-verity root hash of an OCI layer, which a policy names
    #[command(after_help = "Example:\n  casemate layer hash layer.tar.zst")]
    Hash {
        /// The layer, or `-` for standard input
        input: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Convert an image's layers into the node's cache, before a container needs them; pulls what containerd lacks
    #[command(
        after_help = "Examples:\n  casemate layer prepare --namespace k8s.io docker.io/library/nginx:1.27\n  casemate layer prepare --registries \
        registries.toml registry.corp/team/app:1\n  casemate layer prepare --json ./layout.tar | jq -r '.layers[].root_hash'\n\nA layer that a shim \
        converts at the moment is waited for. What is there stays until `casemate gc` removes it."
    )]
    Prepare(layer::Prepare),
}

#[derive(Subcommand)]
enum Conformance {
    /// Layer conversion vectors
    #[command(after_help = "Example:\n  casemate conformance layers layers.json")]
    Layers {
        /// The vectors; the layers are in the same directory
        file: PathBuf,
    },
    /// Vectors of SEV-SNP launches: digests, save areas, ID blocks
    #[command(
        after_help = "Example:\n  casemate conformance launch launch.json\n\nFirmware and keys that vectors name are looked for beside the file; \
        a vector whose firmware is not there is skipped."
    )]
    Launch {
        /// The vectors
        file: PathBuf,
    },
    /// Vectors of registries: which section, credentials, TLS mode and proxy a pull uses, and what a token service grants
    #[command(
        after_help = "Example:\n  casemate conformance registry registry.json\n\nThe vectors of a token service are asked over HTTP of one that \
        runs meanwhile on the loopback, each with a database of its own."
    )]
    Registry {
        /// The vectors
        file: PathBuf,
    },
    /// Policy decision vectors
    #[command(after_help = "Example:\n  casemate conformance policy policy.jsonl")]
    Policy {
        /// The vectors, one scenario a line
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum Image {
    /// Build kernel, initramfs and manifest
    #[command(after_help = "Example:\n  casemate image build --programs target/x86_64-unknown-linux-gnu/guest --output guest")]
    Build {
        /// Directory with the static `casemate-agent`, `casemate-launcher`, `casemate-puller` and `casemate-pause`
        #[arg(long)]
        programs: PathBuf,
        /// stage0's flat program; without it the image has no launch digest
        #[arg(long)]
        stage0: Option<PathBuf>,
        /// Directory to write
        #[arg(long, short)]
        output: PathBuf,
        /// `source` (built from Debian's source with our fragment) or `debian` (packaged cloud kernel and modules)
        #[arg(long, env = "KERNEL", default_value = "source")]
        kernel: guest_image::kernel::Kind,
    },
    /// Print the launch digest that SEV-SNP reports of a guest of this image have
    #[command(
        after_help = "Examples:\n  casemate image measure guest --vcpus 2\n  casemate image measure guest --plan pages.jsonl\n  casemate image measure guest --igvm guest.igvm\n\nThe digest depends on \
        the image and the number of vCPUs only. It is refused if a file is not that of manifest.json, or if manifest.json names another digest."
    )]
    Measure(image::Measure),
}

fn main() -> ExitCode {
    let command = match Cli::parse().command {
        Command::Console(console) => return console::run(console),
        Command::Run(run) => return run::run(run),
        command => command,
    };
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of standard output has closed it, as `head` does.
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            // Names and words in it may be those of an image or of a registry.
            eprintln!("casemate: {}", escaped(&format!("{error:#}")));
            ExitCode::from(3)
        }
    }
}

/// `Ok(false)`: the command ran, and its check failed.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Policy(command) => return policy::run(command),
        Command::Attest(command) => return attest::run(command),
        Command::Host(command) => return host::run(command),
        Command::Layer(Layer::Convert { input, output, json }) => layer::convert(&input, &output, json)?,
        Command::Layer(Layer::Hash { input, json }) => layer::hash(&input, json)?,
        Command::Layer(Layer::Prepare(prepare)) => layer::prepare(prepare)?,
        Command::Conformance(Conformance::Layers { file }) => return Ok(conformance_layers::run(&file)?.1 == 0),
        Command::Conformance(Conformance::Launch { file }) => return Ok(conformance_launch::run(&file)?.1 == 0),
        Command::Conformance(Conformance::Policy { file }) => return Ok(conformance_policy::run(&input::as_file(&file))?.1 == 0),
        Command::Conformance(Conformance::Registry { file }) => return Ok(conformance_registry::run(&file)?.1 == 0),
        Command::Registry(command) => return registry::run(command),
        Command::Image(Image::Build {
            programs,
            stage0,
            output,
            kernel,
        }) => image::build(&programs, stage0, &output, kernel)?,
        Command::Image(Image::Measure(measure)) => image::measure(&measure)?,
        Command::Gc(gc) => gc::run(&gc)?,
        Command::Ps { json } => node::ps(json)?,
        Command::Stats { id, json } => node::stats(&id, json)?,
        // Have exit codes of their own; see main.
        Command::Console(_) | Command::Run(_) => return Ok(false),
    }
    Ok(true)
}
