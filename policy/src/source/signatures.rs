//! What OPA's built-in functions take and return, as far as its compiler checks it.
//!
//! A type is a letter: `s`tring, `n`umber, `b`oolean, n`u`ll, `a`rray, `o`bject, se`t`, or `x` for any. Several letters are alternatives.

/// Name, types of the arguments, type of the result.
const SIGNATURES: &[(&str, &[&str], &str)] = &[
    ("abs", &["n"], "n"),
    ("array.concat", &["a", "a"], "a"),
    ("array.reverse", &["a"], "a"),
    ("array.slice", &["a", "n", "n"], "a"),
    ("base64.decode", &["s"], "s"),
    ("base64.encode", &["s"], "s"),
    ("base64.is_valid", &["s"], "b"),
    ("base64url.decode", &["s"], "s"),
    ("base64url.encode", &["s"], "s"),
    ("base64url.encode_no_pad", &["s"], "s"),
    ("bits.and", &["n", "n"], "n"),
    ("bits.lsh", &["n", "n"], "n"),
    ("bits.negate", &["n"], "n"),
    ("bits.or", &["n", "n"], "n"),
    ("bits.rsh", &["n", "n"], "n"),
    ("bits.xor", &["n", "n"], "n"),
    ("ceil", &["n"], "n"),
    ("concat", &["s", "at"], "s"),
    ("contains", &["s", "s"], "b"),
    ("count", &["saot"], "n"),
    ("crypto.hmac.equal", &["s", "s"], "b"),
    ("crypto.hmac.sha256", &["s", "s"], "s"),
    ("crypto.hmac.sha384", &["s", "s"], "s"),
    ("crypto.hmac.sha512", &["s", "s"], "s"),
    ("crypto.sha256", &["s"], "s"),
    ("endswith", &["s", "s"], "b"),
    ("floor", &["n"], "n"),
    ("format_int", &["n", "n"], "s"),
    ("glob.match", &["s", "ua", "s"], "b"),
    ("glob.quote_meta", &["s"], "s"),
    ("graph.reachable", &["o", "at"], "t"),
    ("graph.reachable_paths", &["o", "at"], "t"),
    ("hex.decode", &["s"], "s"),
    ("hex.encode", &["s"], "s"),
    ("indexof", &["s", "s"], "n"),
    ("indexof_n", &["s", "s"], "a"),
    ("intersection", &["t"], "t"),
    ("is_array", &["x"], "b"),
    ("is_boolean", &["x"], "b"),
    ("is_null", &["x"], "b"),
    ("is_number", &["x"], "b"),
    ("is_object", &["x"], "b"),
    ("is_set", &["x"], "b"),
    ("is_string", &["x"], "b"),
    ("json.filter", &["o", "at"], "x"),
    ("json.is_valid", &["s"], "b"),
    ("json.marshal", &["x"], "s"),
    ("json.marshal_with_options", &["x", "o"], "s"),
    ("json.patch", &["x", "a"], "x"),
    ("json.remove", &["o", "at"], "x"),
    ("json.unmarshal", &["s"], "x"),
    ("lower", &["s"], "s"),
    ("max", &["at"], "x"),
    ("min", &["at"], "x"),
    ("net.cidr_contains", &["s", "s"], "b"),
    ("net.cidr_expand", &["s"], "t"),
    ("net.cidr_is_valid", &["s"], "b"),
    ("numbers.range", &["n", "n"], "a"),
    ("numbers.range_step", &["n", "n", "n"], "a"),
    ("object.filter", &["o", "aot"], "x"),
    ("object.get", &["o", "x", "x"], "x"),
    ("object.keys", &["o"], "t"),
    ("object.remove", &["o", "aot"], "x"),
    ("object.subset", &["aot", "aot"], "x"),
    ("object.union", &["o", "o"], "x"),
    ("object.union_n", &["a"], "x"),
    ("product", &["at"], "n"),
    ("regex.find_all_string_submatch_n", &["s", "s", "n"], "a"),
    ("regex.find_n", &["s", "s", "n"], "a"),
    ("regex.is_valid", &["s"], "b"),
    ("regex.match", &["s", "s"], "b"),
    ("regex.replace", &["s", "s", "s"], "s"),
    ("regex.split", &["s", "s"], "a"),
    ("regex.template_match", &["s", "s", "s", "s"], "b"),
    ("replace", &["s", "s", "s"], "s"),
    ("round", &["n"], "n"),
    ("semver.compare", &["s", "s"], "n"),
    ("semver.is_valid", &["x"], "b"),
    ("sort", &["at"], "a"),
    ("split", &["s", "s"], "a"),
    ("sprintf", &["s", "a"], "s"),
    ("startswith", &["s", "s"], "b"),
    ("strings.any_prefix_match", &["sat", "sat"], "b"),
    ("strings.any_suffix_match", &["sat", "sat"], "b"),
    ("strings.count", &["s", "s"], "n"),
    ("strings.replace_n", &["o", "s"], "s"),
    ("strings.reverse", &["s"], "s"),
    ("substring", &["s", "n", "n"], "s"),
    ("sum", &["at"], "n"),
    ("time.add_date", &["n", "n", "n", "n"], "n"),
    ("time.clock", &["na"], "a"),
    ("time.date", &["na"], "a"),
    ("time.diff", &["na", "na"], "a"),
    ("time.format", &["na"], "s"),
    ("time.parse_duration_ns", &["s"], "n"),
    ("time.parse_ns", &["s", "s"], "n"),
    ("time.parse_rfc3339_ns", &["s"], "n"),
    ("time.weekday", &["na"], "s"),
    ("to_number", &["nsbu"], "n"),
    ("trace", &["s"], "b"),
    ("trim", &["s", "s"], "s"),
    ("trim_left", &["s", "s"], "s"),
    ("trim_prefix", &["s", "s"], "s"),
    ("trim_right", &["s", "s"], "s"),
    ("trim_space", &["s"], "s"),
    ("trim_suffix", &["s", "s"], "s"),
    ("type_name", &["x"], "s"),
    ("union", &["t"], "t"),
    ("units.parse", &["s"], "n"),
    ("units.parse_bytes", &["s"], "n"),
    ("upper", &["s"], "s"),
    ("urlquery.decode", &["s"], "s"),
    ("urlquery.decode_object", &["s"], "o"),
    ("urlquery.encode", &["s"], "s"),
    ("urlquery.encode_object", &["o"], "s"),
    ("walk", &["x"], "a"),
    ("yaml.is_valid", &["s"], "b"),
    ("yaml.marshal", &["x"], "s"),
    ("yaml.unmarshal", &["s"], "x"),
];

/// A function's argument types and result type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) arguments: &'static [&'static str],
    pub(super) result: &'static str,
}

/// The signature of a built-in; none for one that takes any number of arguments.
pub(super) fn signature(name: &str) -> Option<Signature> {
    let found = SIGNATURES.iter().find(|(listed, ..)| *listed == name)?;
    Some(Signature {
        arguments: found.1,
        result: found.2,
    })
}

/// A type as OPA names it.
pub(super) fn type_name(letters: &str) -> String {
    let name = |letter| match letter {
        's' => "string",
        'n' => "number",
        'b' => "boolean",
        'u' => "null",
        'a' => "array",
        'o' => "object",
        't' => "set",
        _ => "any",
    };
    let names: Vec<&str> = letters.chars().map(name).collect();
    match names.as_slice() {
        [one] => (*one).to_owned(),
        several => format!("any<{}>", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::builtins::BUILTINS;

    #[test]
    fn every_built_in_of_fixed_arity_has_a_signature() {
        for name in BUILTINS.iter().filter(|name| !matches!(**name, "print" | "set")) {
            assert!(signature(name).is_some(), "{name}");
        }
        assert_eq!(SIGNATURES.len() + 2, BUILTINS.len());
    }
}
