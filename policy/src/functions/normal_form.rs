//! The functions of the normal form of policies. No policy may call them itself.

use std::collections::BTreeSet;

use regorus::Value;

use super::Function;
use crate::rego::{literal, normal};

/// Name and implementation of each; all take one argument.
pub(super) const FUNCTIONS: &[(&str, Function)] = &[
    ("casemate_literal", |arguments| match arguments.first()? {
        Value::String(text) => literal::constant(text),
        _ => None,
    }),
    ("casemate_same", |arguments| arguments.first().cloned()),
    ("casemate_list", |arguments| Some(Value::from(rest(arguments)?.collect::<Vec<_>>()))),
    ("casemate_set", |arguments| {
        Some(Value::from(rest(arguments)?.collect::<BTreeSet<_>>()))
    }),
    ("casemate_object", |arguments| {
        let mut object = arguments.first()?.clone();
        object.as_object_mut().ok()?.remove(&Value::from(normal::FIRST_FIELD));
        Some(object)
    }),
    ("casemate_template", |arguments| match arguments.first()? {
        Value::Array(parts) => template(parts.iter()),
        _ => None,
    }),
    ("casemate_walk", |arguments| {
        let mut pairs = Vec::new();
        walk(&mut Vec::new(), arguments.first()?, &mut pairs);
        Some(Value::from(pairs))
    }),
];

/// The items behind the first one, which the normal form puts there.
fn rest(arguments: &[Value]) -> Option<impl Iterator<Item = Value>> {
    match arguments.first()? {
        Value::Array(items) => Some(items.iter().skip(1).cloned()),
        _ => None,
    }
}

/// The text of a template string. A part is a string, or the set of the values of an expression.
fn template<'v>(parts: impl Iterator<Item = &'v Value>) -> Option<Value> {
    let mut text = String::new();
    for part in parts {
        match part {
            Value::String(plain) => text.push_str(plain),
            Value::Set(values) => {
                let mut values = values.iter_sorted();
                match (values.next(), values.next()) {
                    (None, _) => text.push_str("<undefined>"),
                    (Some(Value::String(plain)), None) => text.push_str(plain),
                    (Some(value), None) => text.push_str(&rendered(value)),
                    // An error in OPA.
                    (Some(_), Some(_)) => return None,
                }
            }
            _ => return None,
        }
    }
    Some(Value::from(text))
}

/// The text of a value as OPA writes it in template strings.
fn rendered(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Array(items) => format!("[{}]", list(items.iter().map(rendered).collect())),
        Value::Set(items) if items.is_empty() => "set()".to_owned(),
        Value::Set(items) => format!("{{{}}}", list(items.iter_sorted().map(rendered).collect())),
        Value::Object(fields) => {
            let fields = fields
                .iter_sorted()
                .map(|(key, value)| format!("{}: {}", rendered(key), rendered(value)));
            format!("{{{}}}", list(fields.collect()))
        }
        // Strings with their quotes.
        scalar => scalar.to_string(),
    }
}

/// A value and all below it, each with its path.
fn walk(path: &mut Vec<Value>, value: &Value, pairs: &mut Vec<Value>) {
    pairs.push(Value::from(vec![Value::from(path.clone()), value.clone()]));
    let mut below = |key: Value, value: &Value| {
        path.push(key);
        walk(path, value, pairs);
        path.pop();
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| below(Value::from(index), item)),
        Value::Set(items) => items.iter_sorted().for_each(|item| below(item.clone(), item)),
        Value::Object(fields) => fields.iter_sorted().for_each(|(key, value)| below(key.clone(), value)),
        _ => {}
    }
}
