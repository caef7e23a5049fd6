//! Signals by the names that an image's `StopSignal` has (image specification, config.md: `SIGKILL`, `SIGRTMIN+3`, or a number).

/// Linux' signals from 1 on (signal(7), x86).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Other names of the same.
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// Real-time signals as C libraries number them: the first two are their own.
const REALTIME_MIN: i32 = 34;
const REALTIME_MAX: i32 = 64;

/// The number of a signal that is named or numbered.
pub(crate) fn number(text: &str) -> Option<i32> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=REALTIME_MAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(REALTIME_MIN, offset, '+');
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(REALTIME_MAX, offset, '-');
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    alias.or_else(|| (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number))
}

/// `base`, or `base` and an offset in the direction of `sign`.
fn realtime(base: i32, offset: &str, sign: char) -> Option<i32> {
    let offset: i32 = match offset.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None if offset.is_empty() => 0,
        None => return None,
    };
    let number = if sign == '+' {
        base.checked_add(offset)?
    } else {
        base.checked_sub(offset)?
    };
    Some(number).filter(|number| (REALTIME_MIN..=REALTIME_MAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", 15),
            ("sigquit", 3),
            ("HUP", 1),
            ("SIGSYS", 31),
            ("SIGPOLL", 29),
            ("3", 3),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-9",
            "SIG",
            "SIGNONE",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "SIGRTMAX+1",
            "SIGRTMIN+",
            "SIGRTMIN+x",
            "99999999999999999999",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
