//! Text of a guest or of its VMM, before it reaches an operator's terminal or a log.

/// Longest text that is shown, in bytes. A denial with its decision is shorter.
const TEXT_MAX_BYTES: usize = 8 << 10;

/// The text without characters that move a cursor, change a terminal's state or the order of what is read, and no longer than 8 KiB.
///
/// C0 and C1 controls (ECMA-48) go, except for the line feed and the tab, and so do bidirectional controls (Unicode Standard Annex #9).
pub fn guest_text(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().filter(|c| is_harmless(*c)) {
        if shown.len() + c.len_utf8() > TEXT_MAX_BYTES {
            break;
        }
        shown.push(c);
    }
    shown
}

/// The whole text with `\u009b` and the like in place of those characters: text by which a reader decides, such as a policy, in whose
/// strings they mean the same.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_harmless(c) {
            true => shown.push(c),
            false => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    shown
}

fn is_harmless(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        _ => !c.is_control(),
    }
}

/// An error of a call to the agent, with the agent's text as [`guest_text`].
pub fn from_guest(error: ttrpc::Error) -> ttrpc::Error {
    match error {
        ttrpc::Error::RpcStatus(mut status) => {
            let text = guest_text(status.message());
            status.set_message(text);
            status.details.clear();
            ttrpc::Error::RpcStatus(status)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_controls_a_terminal_goes_and_the_rest_stays() {
        assert_eq!(guest_text("denied\u{1b}]0;title\u{7}\u{9b}2J\r:\tno\n"), "denied]0;title2J:\tno\n");
        assert_eq!(guest_text("\u{202e}txt.exe\u{2066} Äß漢"), "txt.exe Äß漢");
        assert_eq!(guest_text(&"ä".repeat(TEXT_MAX_BYTES)).len(), TEXT_MAX_BYTES);
    }

    #[test]
    fn what_is_escaped_is_whole() {
        assert_eq!(
            escaped("A=\u{9b}2J\u{202e}\u{7f}\u{1b}\r\tä\n"),
            "A=\\u009b2J\\u202e\\u007f\\u001b\\u000d\tä\n"
        );
        assert_eq!(escaped(&"ä".repeat(TEXT_MAX_BYTES)).len(), 2 * TEXT_MAX_BYTES);
    }

    #[test]
    fn an_error_keeps_its_code() {
        let status = ttrpc::get_status(ttrpc::Code::NOT_FOUND, "gone\u{1b}[2J");
        match from_guest(ttrpc::Error::RpcStatus(status)) {
            ttrpc::Error::RpcStatus(status) => {
                assert_eq!((status.code(), status.message()), (ttrpc::Code::NOT_FOUND, "gone[2J"));
            }
            other => panic!("{other}"),
        }
    }

    proptest! {
        #[test]
        fn every_text_is_short_and_harmless(text in ".*") {
            let shown = guest_text(&text);
            prop_assert!(shown.len() <= TEXT_MAX_BYTES && shown.chars().all(is_harmless));
        }
    }
}
