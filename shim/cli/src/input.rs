//! Input of commands: a file, or standard input for `-`; policies in each of their forms.

use anyhow::{Context, Result, bail, ensure};
use container_run::Source;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The path that stands for standard input.
const STDIN: &str = "-";

/// Whether a path stands for standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

/// The name of an input in messages.
pub fn shown(path: &Path) -> String {
    match is_stdin(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// The path of an input for code that opens files itself.
pub fn as_file(path: &Path) -> PathBuf {
    if is_stdin(path) {
        PathBuf::from("/dev/stdin")
    } else {
        path.to_owned()
    }
}

/// An image of the command line: the path of its files, or a reference.
pub fn image(text: &str) -> Result<Source> {
    let source = Source::parse(text);
    if !matches!(source, Ok(Source::Files(_))) && Path::new(text).exists() {
        eprintln!("casemate: {text:?} is taken for an image's name; the file of that name is ./{text}");
    }
    source.with_context(|| format!("{text:?} is neither a path, which begins with / or ./, nor an image's name"))
}

/// Refuses standard input for more than one input: the second would be empty.
pub fn one_stdin(paths: &[&Path]) -> Result<()> {
    match paths.iter().filter(|path| is_stdin(path)).count() {
        0 | 1 => Ok(()),
        _ => bail!("only one of the files can be standard input"),
    }
}

/// Opens an input; its length is 0 where it is unknown.
pub fn open(path: &Path) -> Result<(Box<dyn Read + Send>, u64)> {
    if is_stdin(path) {
        return Ok((Box::new(io::stdin()), 0));
    }
    let describe = || format!("cannot open {}", path.display());
    let file = File::open(path).with_context(describe)?;
    let length = file.metadata().with_context(describe)?.len();
    Ok((Box::new(file), length))
}

/// Reads a whole input of at most `most` bytes.
pub fn bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let name = shown(path);
    let mut bytes = Vec::new();
    let (input, _) = open(path)?;
    input
        .take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {name}"))?;
    ensure!(bytes.len() as u64 <= most, "{name} is larger than {most} bytes");
    Ok(bytes)
}

/// Reads a text of bounded size.
pub fn text(path: &Path) -> Result<String> {
    let bytes = bytes(path, policy_tools::MAX_COMMANDS_BYTES)?;
    String::from_utf8(bytes).with_context(|| format!("{} is not text", shown(path)))
}

/// Reads a policy or a fragment: its text, or base64 of it, as annotations have it.
pub fn policy(path: &Path) -> Result<String> {
    let bytes = bytes(path, policy_tools::MAX_COMMANDS_BYTES)?;
    policy_tools::policy_text(bytes).with_context(|| format!("{} cannot be used", shown(path)))
}

/// Reads a signed fragment: the message, or base64 of it.
pub fn signed(path: &Path) -> Result<Vec<u8>> {
    use base64::Engine as _;
    // Base64 takes a third more, and lines end.
    let bytes = bytes(path, 2 * policy_fragment::MAX_MESSAGE_BYTES as u64)?;
    let packed: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(packed);
    Ok(decoded.ok().filter(|decoded| !decoded.is_empty()).unwrap_or(bytes))
}

/// What the old form of policies is, for who gives one where Rego is wanted.
pub fn hint(text: &str) -> &'static str {
    match text.trim_start().starts_with('{') {
        true => " (a policy in the old JSON form: `casemate policy convert` makes Rego of it)",
        false => "",
    }
}

/// An error about a policy, with the name that the user gave instead of the engine's.
pub fn about(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let text = format!("{:#}", error.into());
    anyhow::Error::msg(text.replace("--> policy.rego:", &format!("--> {}:", shown(path))))
}
