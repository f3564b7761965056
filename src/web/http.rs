//! The part of HTTP/1.1 (RFC 9112) that a scrape needs: one request on each connection, no body.

/// A longer head is refused.
pub const HEAD_MAX: usize = 8 * 1024;

/// The largest number of fields in a head; Prometheus sends seven.
const FIELDS_MAX: usize = 64;

/// The two texts that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus, which curl and old scrapers get.
    Plain,
}

impl Format {
    const fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A request for the metrics.
    Metrics {
        /// The format of the answer.
        format: Format,
        /// Whether the body is left out (HEAD).
        head_only: bool,
    },
    /// A request that is refused.
    Refused(Refused),
}

/// The reasons for refusing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The request is not HTTP.
    BadRequest,
    /// The path is not /metrics.
    NotFound,
    /// The method is neither GET nor HEAD.
    MethodNotAllowed,
    /// The head is longer than [`HEAD_MAX`], or has too many fields.
    TooLarge,
}

/// Reads the head of a request; `None` as long as there is more of it to come.
pub fn parse(bytes: &[u8]) -> Option<Request> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Some(Request::Refused(Refused::TooLarge))
        }
        Ok(httparse::Status::Complete(length)) if length > HEAD_MAX => {
            Some(Request::Refused(Refused::TooLarge))
        }
        Ok(httparse::Status::Complete(_)) => Some(wanted(&head)),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::Version,
        ) => Some(Request::Refused(Refused::BadRequest)),
    }
}

fn wanted(head: &httparse::Request) -> Request {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Request::Refused(Refused::BadRequest);
    };
    let named = |name: &'static str| {
        let fields = head.headers.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    // RFC 9112, 3.2: exactly one, in every request of version 1.1.
    let hosts = named("host").count();
    if hosts > 1 || (version == 1 && hosts == 0) {
        return Request::Refused(Refused::BadRequest);
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path != "/metrics" {
        return Request::Refused(Refused::NotFound);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Request::Refused(Refused::MethodNotAllowed),
    };
    let accept = named("accept").filter_map(|field| std::str::from_utf8(field.value).ok());
    Request::Metrics {
        format: preferred(accept),
        head_only,
    }
}

/// OpenMetrics for who asks for it by name and does not like plain text better; plain text for
/// everybody else, whatever they accept.
fn preferred<'h>(accept: impl Iterator<Item = &'h str>) -> Format {
    let (mut openmetrics, mut plain) = (0.0_f32, 0.0_f32);
    for range in accept.flat_map(|field| field.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameter = |name: &str, part: &str| {
            let (key, value) = part.split_once('=')?;
            let is_it = key.trim().eq_ignore_ascii_case(name);
            is_it.then(|| value.trim().trim_matches('"').to_owned())
        };
        let (mut weight, mut version) = (1.0, None);
        for part in parts {
            if let Some(q) = parameter("q", part) {
                weight = q.parse().unwrap_or(0.0);
            }
            version = version.or(parameter("version", part));
        }
        match media.as_str() {
            "application/openmetrics-text" if version.as_deref().is_none_or(|v| v == "1.0.0") => {
                openmetrics = openmetrics.max(weight);
            }
            "text/plain" => plain = plain.max(weight),
            _ => {}
        }
    }
    if openmetrics > 0.0 && openmetrics >= plain {
        Format::OpenMetrics
    } else {
        Format::Plain
    }
}

/// The head of the answer to a scrape, for a body of this length.
pub fn found(format: Format, length: usize) -> Vec<u8> {
    head("200 OK", format.content_type(), "", length).into_bytes()
}

impl Refused {
    /// The whole answer.
    pub fn answer(self) -> Vec<u8> {
        let (status, further, words) = match self {
            Refused::BadRequest => ("400 Bad Request", "", "This is not an HTTP request.\n"),
            Refused::NotFound => ("404 Not Found", "", "Metrics are at /metrics.\n"),
            Refused::MethodNotAllowed => (
                "405 Method Not Allowed",
                "Allow: GET, HEAD\r\n",
                "Metrics can only be read.\n",
            ),
            Refused::TooLarge => (
                "431 Request Header Fields Too Large",
                "",
                "The head of a request may have 8 KiB.\n",
            ),
        };
        let head = head(status, "text/plain; charset=utf-8", further, words.len());
        (head + words).into_bytes()
    }
}

fn head(status: &str, content_type: &str, further: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         {further}Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Option<Request> {
        parse(text.as_bytes())
    }

    fn format_for(accept: &str) -> Format {
        let text = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{accept}\r\n\r\n");
        match get(text.trim_start()) {
            Some(Request::Metrics { format, .. }) => format,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_when_it_is_whole() {
        let text = "HEAD /metrics?x=y HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(get(&text[..length]), None, "{length}");
        }
        let whole = Request::Metrics {
            format: Format::Plain,
            head_only: true,
        };
        assert_eq!(get(text), Some(whole));
    }

    #[test]
    fn what_is_not_served_is_refused_by_its_name() {
        use Refused::{BadRequest, MethodNotAllowed, NotFound, TooLarge};
        let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
        let long = format!("a: {}\r\n", "x".repeat(HEAD_MAX));
        for (text, why) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", NotFound),
            ("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n", NotFound),
            (
                "POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                MethodNotAllowed,
            ),
            ("GET /metrics HTTP/1.1\r\n\r\n", BadRequest),
            (
                "GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                BadRequest,
            ),
            ("GET /metrics HTTP/2.0\r\n\r\n", BadRequest),
            ("GET /metrics\r\n\r\n", BadRequest),
            ("\u{16}\u{3}\u{1}", BadRequest),
            (&format!("GET /metrics HTTP/1.1\r\n{many}\r\n"), TooLarge),
            (&format!("GET /metrics HTTP/1.1\r\n{long}\r\n"), TooLarge),
            (&format!("GET /metrics HTTP/1.1\r\n{long}"), TooLarge),
        ] {
            assert_eq!(get(text), Some(Request::Refused(why)), "{text:?}");
        }
        assert!(get("GET /metrics HTTP/1.0\r\n\r\n").is_some());
    }

    #[test]
    fn the_format_is_the_one_asked_for() {
        use Format::{OpenMetrics, Plain};
        for (accept, format) in [
            ("X: y", Plain),
            ("Accept: */*", Plain),
            ("Accept: application/openmetrics-text", OpenMetrics),
            ("Accept: application/openmetrics-text; version=2.0.0", Plain),
            (
                "accept: text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0;q=0.6",
                OpenMetrics,
            ),
            (
                "Accept: text/plain;q=0.7\r\nAccept: application/openmetrics-text;q=0.6",
                Plain,
            ),
            ("Accept: application/openmetrics-text;q=0", Plain),
            ("Accept: application/openmetrics-text;q=x", Plain),
            // What Prometheus 2 and 3 send.
            (
                "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
        ] {
            assert_eq!(format_for(accept), format, "{accept}");
        }
    }
}
