//! Functions that the interpreter is given besides its own: those of the normal form, and built-ins of OPA that it lacks or that differ.

use hmac::{Hmac, Mac};
use regorus::{Engine, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::rego::normal;

mod normal_form;

type Function = fn(&[Value]) -> Option<Value>;

/// Name, number of arguments and implementation of each built-in.
const BUILTINS: &[(&str, u8, Function)] = &[
    ("casemate_package", 1, |arguments| {
        text(arguments, 0).map(|name| Value::from(normal::package_name(name)))
    }),
    ("crypto.hmac.equal", 2, |arguments| {
        Some(Value::from(text(arguments, 0)? == text(arguments, 1)?))
    }),
    ("crypto.hmac.sha256", 2, |arguments| code::<Hmac<Sha256>>(arguments)),
    ("crypto.hmac.sha384", 2, |arguments| code::<Hmac<Sha384>>(arguments)),
    ("crypto.hmac.sha512", 2, |arguments| code::<Hmac<Sha512>>(arguments)),
    ("crypto.sha256", 1, |arguments| {
        text(arguments, 0).map(|text| Value::from(hex::encode(Sha256::digest(text))))
    }),
    ("to_number", 1, to_number),
];

/// Registers the functions with `engine`.
pub(crate) fn register(engine: &mut Engine) -> Result<(), String> {
    for (name, arguments, function) in BUILTINS {
        add(engine, name, *arguments, *function)?;
    }
    for (name, function) in normal_form::FUNCTIONS {
        add(engine, name, 1, *function)?;
    }
    Ok(())
}

fn add(
    engine: &mut Engine,
    name: &str,
    arguments: u8,
    function: impl Fn(&[Value]) -> Option<Value> + Send + Sync + Clone + 'static,
) -> Result<(), String> {
    let extension = move |arguments: Vec<Value>| Ok(function(&arguments).unwrap_or(Value::Undefined));
    engine
        .add_extension(name.to_owned(), arguments, Box::new(extension))
        .map_err(|error| error.to_string())
}

fn text(arguments: &[Value], index: usize) -> Option<&str> {
    match arguments.get(index)? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A message authentication code of the first argument under the key in the second one, in hexadecimal digits.
fn code<M: Mac + hmac::digest::KeyInit>(arguments: &[Value]) -> Option<Value> {
    let mut code = <M as Mac>::new_from_slice(text(arguments, 1)?.as_bytes()).ok()?;
    code.update(text(arguments, 0)?.as_bytes());
    Some(Value::from(hex::encode(code.finalize().into_bytes())))
}

/// A number from a text as Go's `strconv.ParseFloat` reads it: with a sign and leading zeros, without blanks.
fn to_number(arguments: &[Value]) -> Option<Value> {
    let text = match arguments.first()? {
        Value::Null => return Some(Value::from(0u64)),
        Value::Bool(truth) => return Some(Value::from(u64::from(*truth))),
        number @ Value::Number(_) => return Some(number.clone()),
        Value::String(text) => text,
        _ => return None,
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let decimal =
        digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.bytes().all(|b| b.is_ascii_digit() || b"eE+-.".contains(&b));
    // Out of the range of a float it is an error in Go.
    let fits = decimal && text.parse::<f64>().is_ok_and(f64::is_finite);
    let number = fits.then(|| Value::from_numeric_string(text).ok())?;
    number.filter(|number| matches!(number, Value::Number(_)))
}
