//! The little of HTTP/1.1 (RFC 9112) that `GET /report?nonce=…` needs: a request without body, an answer that ends the connection.

use permit_log::{MAX_NONCE_BYTES, MIN_NONCE_BYTES, Nonce};

/// Longest head of a request in bytes; curl sends 100 and the nonce.
const HEAD_BYTES: usize = 4096;
/// Most header fields.
const FIELDS: usize = 32;

/// What a container asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// The nonce in hex, decoded.
    pub nonce: Nonce,
}

/// The status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    Method,
    Timeout,
    TooLarge,
    TooMany,
    NotImplemented,
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::Method => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::TooMany => "429 Too Many Requests",
            Self::NotImplemented => "501 Not Implemented",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// The bytes of a connection so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head has not ended.
    Partial,
    /// A request.
    Whole(Asked),
    /// No request that is served.
    Refused(Status, String),
}

/// Reads the head of a request.
pub fn parse(bytes: &[u8]) -> Parsed {
    let refused = |status, text: &str| Parsed::Refused(status, text.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end <= HEAD_BYTES => {}
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES => return Parsed::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return refused(Status::TooLarge, "the head of the request is too large"),
        Err(_) => return refused(Status::BadRequest, "not a request of HTTP/1.1"),
    }
    let (path, query) = match request.path.unwrap_or_default() {
        path if path.contains('?') => path.split_once('?').unwrap_or((path, "")),
        path => (path, ""),
    };
    if path != "/report" {
        return refused(Status::NotFound, "there is only /report?nonce=<hex>");
    }
    if request.method != Some("GET") {
        return refused(Status::Method, "only GET is served");
    }
    let mut nonces = query.split('&').filter_map(|parameter| parameter.strip_prefix("nonce="));
    let (Some(nonce), None) = (nonces.next(), nonces.next()) else {
        return refused(Status::BadRequest, "wanted one parameter nonce=<hex>");
    };
    let bytes = hex::decode(nonce).ok();
    match bytes.and_then(|bytes| Nonce::new(bytes).ok()) {
        Some(nonce) => Parsed::Whole(Asked { nonce }),
        None => Parsed::Refused(
            Status::BadRequest,
            format!(
                "the nonce must have {} to {} hex digits, two for a byte",
                2 * MIN_NONCE_BYTES,
                2 * MAX_NONCE_BYTES
            ),
        ),
    }
}

/// An answer with its head.
pub fn response(status: Status, body: &str) -> Vec<u8> {
    let kind = match status {
        Status::Ok => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        status.line(),
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CURL: &str = " HTTP/1.1\r\nHost: guest\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";

    fn get(target: &str) -> Parsed {
        parse(format!("GET {target}{CURL}").as_bytes())
    }

    fn status(parsed: Parsed) -> Option<Status> {
        match parsed {
            Parsed::Refused(status, _) => Some(status),
            _ => None,
        }
    }

    #[test]
    fn curls_request_is_understood() {
        let nonce = Nonce::new(vec![0xab; 32]).unwrap();
        let target = format!("/report?nonce={}", "ab".repeat(32));
        assert_eq!(get(&target), Parsed::Whole(Asked { nonce }));
        let whole = format!("GET {target}{CURL}");
        for end in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..end]), Parsed::Partial);
        }
    }

    #[test]
    fn everything_else_is_refused_by_what_is_wrong() {
        let nonce = "ab".repeat(16);
        for (target, wanted) in [
            ("/".to_owned(), Status::NotFound),
            (format!("/reports?nonce={nonce}"), Status::NotFound),
            ("/report".to_owned(), Status::BadRequest),
            ("/report?nonce=".to_owned(), Status::BadRequest),
            (format!("/report?nonce={}", &nonce[1..]), Status::BadRequest),
            (format!("/report?nonce={}", &nonce[2..]), Status::BadRequest),
            (format!("/report?nonce=zz{nonce}"), Status::BadRequest),
            (format!("/report?nonce={}", "ab".repeat(65)), Status::BadRequest),
            (format!("/report?nonce={nonce}&nonce={nonce}"), Status::BadRequest),
        ] {
            assert_eq!(status(get(&target)), Some(wanted), "{target}");
        }
        assert_eq!(
            status(parse(format!("POST /report?nonce={nonce}{CURL}").as_bytes())),
            Some(Status::Method)
        );
        assert_eq!(status(parse(b"\x16\x03\x01\x02\x00")), Some(Status::BadRequest));
        assert_eq!(
            status(parse(&[b"GET /".as_slice(), &[b'a'; 5000]].concat())),
            Some(Status::TooLarge)
        );
        let fields = "A: b\r\n".repeat(40);
        assert_eq!(
            status(parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes())),
            Some(Status::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_incomplete(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            prop_assert!(!matches!(parse(&bytes), Parsed::Whole(_)));
        }
    }
}
