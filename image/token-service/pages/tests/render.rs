//! Every page as a document: what each must have for browsers, keyboards and screen readers, and that no text gets out of its place.

mod samples {
    pub mod pages;
}

use samples::pages::{HOSTILE, pages};
use std::collections::HashSet;

/// The start tags of a document with their attributes, by the small part of HTML that the templates use.
fn tags(html: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let mut all = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("each tag ends");
        let (tag, after) = rest.split_at(end);
        rest = after;
        if tag.starts_with(['/', '!']) {
            continue;
        }
        let (name, mut text) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut attributes = Vec::new();
        loop {
            text = text.trim_start();
            if text.is_empty() {
                break;
            }
            let name_end = text.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(text.len());
            let (attribute, after) = text.split_at(name_end);
            if let Some(value) = after.strip_prefix("=\"") {
                let close = value.find('"').expect("each value ends");
                attributes.push((attribute, &value[..close]));
                text = &value[close + 1..];
            } else {
                assert!(!after.starts_with('='), "a value without quotes in <{tag}>");
                attributes.push((attribute, ""));
                text = after;
            }
        }
        all.push((name, attributes));
    }
    all
}

fn value<'a>(attributes: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

#[test]
fn each_page_is_whole_and_reads_aloud() {
    for (page, html) in pages("a plain text") {
        let tags = tags(&html);
        let count = |name: &str| tags.iter().filter(|(tag, _)| *tag == name).count();
        assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{page}");
        for one in ["title", "h1", "main", "header", "footer"] {
            assert_eq!(count(one), 1, "{page}: <{one}>");
        }
        assert_eq!(count("table"), count("caption"), "{page}");
        let mut ids = HashSet::new();
        for (tag, attributes) in &tags {
            if let Some(id) = value(attributes, "id") {
                assert!(ids.insert(id), "{page}: two of id {id} at <{tag}>");
            }
        }
        for (tag, attributes) in &tags {
            for refers in ["for", "aria-describedby", "aria-labelledby"] {
                for id in value(attributes, refers).into_iter().flat_map(str::split_whitespace) {
                    assert!(ids.contains(id), "{page}: {refers}={id} at <{tag}> refers to nothing");
                }
            }
            if let Some(id) = value(attributes, "href").and_then(|href| href.strip_prefix('#')) {
                assert!(ids.contains(id), "{page}: a link to #{id}");
            }
        }
        let labelled: HashSet<&str> = tags
            .iter()
            .filter(|(tag, _)| *tag == "label")
            .filter_map(|(_, attributes)| value(attributes, "for"))
            .collect();
        for (tag, attributes) in &tags {
            let free = matches!(value(attributes, "type"), Some("hidden" | "checkbox"));
            if matches!(*tag, "input" | "select") && !free {
                assert!(
                    value(attributes, "id").is_some_and(|id| labelled.contains(id)),
                    "{page}: {attributes:?}"
                );
            }
        }
    }
}

#[test]
fn nothing_runs_and_each_form_that_changes_something_has_its_key() {
    for (page, html) in pages(HOSTILE) {
        for (tag, attributes) in tags(&html) {
            assert!(
                !matches!(tag, "script" | "style" | "iframe" | "object" | "embed" | "base" | "img" | "svg"),
                "{page}: <{tag}>"
            );
            for (name, text) in attributes {
                assert!(!name.starts_with("on") && name != "style", "{page}: {name}={text}");
                if matches!(name, "href" | "action") {
                    assert!(
                        text.starts_with('/') && !text.starts_with("//") || text.starts_with('#'),
                        "{page}: {name}={text}"
                    );
                }
            }
        }
        for form in html.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap_or_default();
            if form.contains("method=\"post\"") && !form.contains("action=\"/sign-in\"") {
                assert!(form.contains("name=\"form_key\" value=\"the-form-key\""), "{page}: {form}");
            }
        }
    }
}

#[test]
fn text_stays_text() {
    let mut shown = 0;
    for (page, html) in pages(HOSTILE) {
        assert!(
            !html.contains("<b x=") && !html.contains("'y'") && !html.contains("\"z\""),
            "{page}"
        );
        shown += html.matches("&#60;b x=&#39;y&#39;&#62;&#34;z&#34;&#38;amp;").count();
    }
    assert!(shown > 60, "the hostile text is in {shown} places only");
}

#[test]
fn the_pages_say_what_decides() {
    let pages = pages("dora");
    let page = |name: &str| {
        pages
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, html)| html.as_str())
            .unwrap()
    };
    let project = page("project");
    for text in ["maintainer", "not protected", "deploy token", "and 7 more", "nobody", "immutable"] {
        assert!(project.contains(text), "{text}");
    }
    assert!(page("what-if").contains("denied: container protected; you are not allowed to push new package"));
    assert!(page("rule-wrong").contains("<title>Error: New protection rule"));
    assert!(page("rule-wrong").contains("aria-invalid=\"true\" aria-describedby=\"pattern-fault pattern-hint\""));
    assert!(page("audit").contains("<time datetime=\"2026-11-30T19:55:02Z\">"));
    let debug = format!("{:?}", samples::pages::new_token("dora"));
    assert!(!debug.contains("cmd_"), "{debug}");
}

/// Contrast of two colours as the accessibility guidelines define it (WCAG 2.2, 1.4.3).
fn contrast(one: &str, other: &str) -> f64 {
    let luminance = |colour: &str| {
        let part = |n: usize| {
            let byte = u8::from_str_radix(&colour[n..n + 2], 16).expect("two hexadecimal digits");
            let share = f64::from(byte) / 255.0;
            if share <= 0.04045 {
                share / 12.92
            } else {
                ((share + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let (a, b) = (luminance(one), luminance(other));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn colours_keep_their_distance_by_day_and_by_night() {
    let style = registry_pages::STYLE;
    let themes: Vec<&str> = style.split("--ground:").skip(1).collect();
    assert_eq!(themes.len(), 2);
    for theme in themes {
        let theme = format!("--ground:{theme}");
        let colour = |name: &str| {
            let after = theme.split(&format!("--{name}: ")).nth(1).unwrap_or_else(|| panic!("--{name}"));
            after[..7].to_owned()
        };
        for (text, ground, least) in [
            ("ink", "paper", 7.0),
            ("ink", "ground", 7.0),
            ("ink", "tint", 4.5),
            ("ink", "good-tint", 4.5),
            ("ink", "bad-tint", 4.5),
            ("faint", "paper", 4.5),
            ("faint", "ground", 4.5),
            ("accent", "paper", 4.5),
            ("accent", "ground", 4.5),
            ("accent", "tint", 4.5),
            ("accent-ink", "accent", 4.5),
            ("accent-ink", "hover", 4.5),
            ("good", "good-tint", 4.5),
            ("bad", "bad-tint", 4.5),
            ("bad", "paper", 4.5),
            ("paper", "bad", 4.5),
            ("warn", "warn-tint", 4.5),
            ("field", "paper", 3.0),
        ] {
            let ratio = contrast(&colour(text), &colour(ground));
            assert!(ratio >= least, "--{text} on --{ground}: {ratio:.2}");
        }
    }
}
