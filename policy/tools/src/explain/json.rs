//! JSON that is cut short.

use serde_json::Value;

/// Maximum number of positions that are tried as the end of a cut document.
const MAX_ATTEMPTS: usize = 256;

/// The part of a cut JSON object up to its last complete element.
pub(super) fn repaired(text: &str) -> Value {
    let mut open: Vec<char> = Vec::new();
    let mut places: Vec<(usize, String)> = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for (position, character) in text.char_indices() {
        match (quoted, character) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => quoted = !quoted,
            (true, _) => {}
            (false, '{') => open.push('}'),
            (false, '[') => open.push(']'),
            (false, '}' | ']') => {
                open.pop();
            }
            (false, ',') => {}
            (false, _) => continue,
        }
        if !quoted && matches!(character, ',' | '{' | '[' | '}' | ']') {
            let end = position + usize::from(character != ',');
            places.push((end, open.iter().rev().collect()));
        }
    }
    let candidates = places.iter().rev().take(MAX_ATTEMPTS);
    let mut values = candidates.filter_map(|(end, closing)| serde_json::from_str(&format!("{}{closing}", text.get(..*end)?)).ok());
    values.next().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_read_as_far_as_it_goes() {
        let document = json!({"decision": "deny", "input": {"argList": ["a", "b,]"], "envList": ["A=1"], "rule": "create_container"}});
        let text = document.to_string();
        assert_eq!(repaired(&text[..text.len() - 30])["input"]["argList"], json!(["a", "b,]"]));
        for end in 0..text.len() {
            let value = repaired(&text[..end]);
            let arguments = value["input"]["argList"].as_array().map_or(0, Vec::len);
            assert!(arguments <= 2, "{end}: {value}");
        }
    }
}
