//! Asks for an attestation report through configfs (`Documentation/ABI/testing/configfs-tsm-report`), as any confidential guest of Linux can.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use attestation::{Report, ReportError};
use nix::mount::{MsFlags, mount};

use super::Attested;

/// Where configfs belongs; the directory is there if the kernel has it.
const CONFIGFS: &str = "/sys/kernel/config";
/// Requests are directories in it.
const REPORTS: &str = "tsm/report";
/// Who makes the reports (`drivers/virt/coco/sev-guest/sev-guest.c`).
const PROVIDER: &str = "sev_guest";
/// The kernel gives no larger blob (`TSM_REPORT_OUTBLOB_MAX`).
const BLOB_BYTES: u64 = 32 << 10;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum TsmError {
    #[error("{step} failed")]
    Io {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("reports are made by {0:?}, not by {PROVIDER}")]
    Provider(String),
    #[error("another request was answered in between")]
    Generation,
    #[error("the report is damaged")]
    Report(#[from] ReportError),
}

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> TsmError {
    move |cause| TsmError::Io { step, cause }
}

/// The directory for requests, if the kernel has one.
///
/// # Errors
/// The kernel has configfs, and it cannot be mounted.
pub fn reports() -> Result<Option<PathBuf>, TsmError> {
    let reports = Path::new(CONFIGFS).join(REPORTS);
    if !reports.exists() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        match mount(Some("configfs"), CONFIGFS, Some("configfs"), flags, None::<&str>) {
            Ok(()) => {}
            // This kernel has none; or it is mounted, and no driver makes reports.
            Err(nix::errno::Errno::ENODEV | nix::errno::Errno::ENOENT | nix::errno::Errno::EBUSY | nix::errno::Errno::EPERM) => {}
            Err(error) => return Err(failed("mounting configfs")(error.into())),
        }
    }
    Ok(reports.exists().then_some(reports))
}

/// A report with this REPORT_DATA.
///
/// # Errors
/// The kernel, the host or the security processor refuses.
pub fn report(reports: &Path, report_data: &[u8; 64]) -> Result<Attested, TsmError> {
    let mut random = [0; 8];
    crate::sys::random(&mut random).map_err(failed("naming the request"))?;
    let request = reports.join(format!("casemate-{}", hex::encode(random)));
    fs::create_dir(&request).map_err(failed("making the request"))?;
    let answer = ask(&request, report_data);
    // The first error is reported; what is left is a directory of the kernel's.
    let _ = fs::remove_dir(&request);
    answer
}

/// Makes a request in its directory.
fn ask(request: &Path, report_data: &[u8; 64]) -> Result<Attested, TsmError> {
    let provider = String::from_utf8_lossy(&read(&request.join("provider")).map_err(failed("reading the provider"))?)
        .trim_end()
        .to_owned();
    if provider != PROVIDER {
        return Err(TsmError::Provider(provider));
    }
    fs::write(request.join("inblob"), report_data).map_err(failed("writing the report data"))?;
    // A change of the request between the two would make one blob of one report and one of another.
    let generation = || read(&request.join("generation")).map_err(failed("reading the generation"));
    let before = generation()?;
    let report = read(&request.join("outblob")).map_err(failed("getting a report"))?;
    let certificates = match read(&request.join("auxblob")) {
        // The host supplies none.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) || error.raw_os_error() == Some(libc::ENXIO) => Vec::new(),
        other => other.map_err(failed("getting certificates"))?,
    };
    if generation()? != before {
        return Err(TsmError::Generation);
    }
    Ok(Attested {
        report: Report::parse(&report)?,
        certificates,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BLOB_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request's directory as the kernel fills it.
    fn request(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut report = vec![0; attestation::REPORT_BYTES];
        report[0] = 3;
        for (name, content) in [
            ("provider", &b"sev_guest\n"[..]),
            ("generation", b"1\n"),
            ("outblob", &report),
            ("auxblob", b"table"),
        ] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn a_report_comes_with_its_certificates() {
        let directory = request(&[]);
        let attested = ask(directory.path(), &[7; 64]).unwrap();
        assert_eq!(attested.report.version(), 3);
        assert_eq!(attested.certificates, b"table");
        assert_eq!(fs::read(directory.path().join("inblob")).unwrap(), [7; 64]);
        fs::remove_file(directory.path().join("auxblob")).unwrap();
        assert!(ask(directory.path(), &[7; 64]).unwrap().certificates.is_empty());
    }

    #[test]
    fn what_is_no_report_of_this_processor_is_refused() {
        let other = request(&[("provider", b"tdx_guest\n")]);
        assert!(matches!(ask(other.path(), &[0; 64]), Err(TsmError::Provider(name)) if name == "tdx_guest"));
        let short = request(&[("outblob", b"x")]);
        assert!(matches!(ask(short.path(), &[0; 64]), Err(TsmError::Report(ReportError::Length(1)))));
        let none = request(&[]);
        fs::remove_file(none.path().join("outblob")).unwrap();
        assert!(matches!(ask(none.path(), &[0; 64]), Err(TsmError::Io { .. })));
    }
}
