//! `containerd-shim-casemate-v2`: containerd runs it to `start` and to `delete`; `start` runs it to serve.
#![forbid(unsafe_code)]

use casemate_shim::bootstrap::{Action, Args, delete, info, serve, start};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd passes this text to its client.
            eprintln!("containerd-shim-casemate-v2: {}", casemate_shim::bootstrap::describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), casemate_shim::bootstrap::BootstrapError> {
    match args.action {
        Action::Version => info::version(),
        Action::Info => info::info(),
        Action::Start => start::start(&args),
        Action::Delete => delete::delete(&args),
        Action::Serve => serve::serve(args),
    }
}
