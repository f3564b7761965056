//! The part of HTTP/1.1 (RFC 9112) that is served: one request on each connection, no body.

use super::page;
use percent_encoding::percent_decode_str;
use std::net::IpAddr;

/// A longer head is refused.
pub const HEAD_MAX: usize = 8 * 1024;

/// The largest number of fields in a head; a browser sends about fifteen.
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

/// What is served to a client.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The page and what it shows, beside the metrics.
    pub has_page: bool,
    /// The name of this machine, if the client must have called it by a name or an address of its own;
    /// `None` where no browser can be made to connect (unix sockets).
    pub called: Option<&'a str>,
}

/// The request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A request for the metrics.
    Metrics {
        /// The format of the answer.
        format: Format,
        /// Whether the body is left out (HEAD).
        head_only: bool,
    },
    /// A request for the page.
    Page {
        /// Whether the body is left out (HEAD).
        head_only: bool,
    },
    /// A request for the status as the daemon answers it.
    Status {
        /// Whether the body is left out (HEAD).
        head_only: bool,
    },
    /// A request for all that changes, as server-sent events.
    Events(Watch),
    /// A request that is refused.
    Refused(Refused),
}

/// What a client wants to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// The last event that it has received, of this connection or the one before.
    pub since: Option<String>,
    /// The worker whose last lines it wants.
    pub lines: Option<String>,
    /// Whether the body is left out (HEAD).
    pub head_only: bool,
}

/// The reasons for refusing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The request is not HTTP.
    BadRequest,
    /// There is nothing at the path.
    NotFound,
    /// Only the metrics are served, and the path is one of the page.
    NoPage,
    /// The method is neither GET nor HEAD.
    MethodNotAllowed,
    /// The head is longer than [`HEAD_MAX`], or has too many fields.
    TooLarge,
    /// The client has asked for a name that may be anybody's.
    Misdirected,
    /// As many clients as can be are watching.
    TooManyWatch,
    /// The daemon has gone, and there will be another.
    NoDaemon,
}

/// Reads the head of a request; `None` as long as there is more of it to come.
pub fn parse(bytes: &[u8], site: Site) -> Option<Request> {
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
        Ok(httparse::Status::Complete(_)) => {
            Some(wanted(&head, site).unwrap_or_else(Request::Refused))
        }
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

fn wanted(head: &httparse::Request, site: Site) -> Result<Request, Refused> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Refused::BadRequest);
    };
    let named = |name: &'static str| {
        let fields = head.headers.iter();
        fields.filter(move |field| field.name.eq_ignore_ascii_case(name))
    };
    let text = |name| named(name).filter_map(|field| std::str::from_utf8(field.value).ok());
    // RFC 9112, 3.2: exactly one, in every request of version 1.1.
    let hosts = named("host").count();
    if hosts > 1 || (version == 1 && hosts == 0) {
        return Err(Refused::BadRequest);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !["/", "/status.json", "/events", "/metrics"].contains(&path) {
        return Err(Refused::NotFound);
    }
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err(Refused::MethodNotAllowed),
    };
    if path == "/metrics" {
        // Scrapers call a machine as they like; its numbers are no secret to a page elsewhere.
        return Ok(Request::Metrics {
            format: preferred(text("accept")),
            head_only,
        });
    }
    if !site.has_page {
        return Err(Refused::NoPage);
    }
    // Without one it is no browser, but a health check of HTTP/1.0.
    if let Some(machine) = site.called
        && hosts == 1
    {
        let host = text("host").next().unwrap_or_default();
        if !is_own(host, machine) {
            return Err(Refused::Misdirected);
        }
    }
    Ok(match path {
        "/" => Request::Page { head_only },
        "/status.json" => Request::Status { head_only },
        _ => Request::Events(Watch {
            since: text("last-event-id")
                .next()
                .map(str::to_owned)
                .or_else(|| parameter(query, "since")),
            lines: parameter(query, "lines"),
            head_only,
        }),
    })
}

/// Whether a page of somebody else cannot have made a browser ask for this host. The names of others can
/// be made to lead here (DNS rebinding); addresses and the names of this machine cannot.
fn is_own(host: &str, machine: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            _ => return false,
        },
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_machine = !machine.is_empty() && name == machine.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || is_machine
}

/// A parameter of a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = percent_decode_str(value).decode_utf8().ok()?;
    Some(value.into_owned()).filter(|value| !value.is_empty())
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
    head("200 OK", format.content_type(), "", Some(length)).into_bytes()
}

/// The head of the answer with the page.
pub fn found_page() -> Vec<u8> {
    let policy = format!("Content-Security-Policy: {}\r\n", page::POLICY);
    let length = Some(page::HTML.len());
    head("200 OK", "text/html; charset=utf-8", &policy, length).into_bytes()
}

/// The head of the answer with the status, for a body of this length.
pub fn found_status(length: usize) -> Vec<u8> {
    head("200 OK", "application/json", "", Some(length)).into_bytes()
}

/// The head of an answer that goes on for as long as the client listens.
pub fn found_events() -> Vec<u8> {
    head("200 OK", "text/event-stream", "", None).into_bytes()
}

impl Refused {
    /// The whole answer.
    pub fn answer(self) -> Vec<u8> {
        let (status, further, words) = match self {
            Refused::BadRequest => (
                "400 Bad Request",
                "",
                "This is not a valid HTTP/1.1 request, which has one Host.\n",
            ),
            Refused::NotFound => (
                "404 Not Found",
                "",
                "There are /, /status.json, /events and /metrics.\n",
            ),
            Refused::NoPage => (
                "404 Not Found",
                "",
                "Metrics are at /metrics. For a page, write `web` in place of `metrics` in the \
                 configuration.\n",
            ),
            Refused::MethodNotAllowed => (
                "405 Method Not Allowed",
                "Allow: GET, HEAD\r\n",
                "Everything here can only be read.\n",
            ),
            Refused::TooLarge => (
                "431 Request Header Fields Too Large",
                "",
                "The head of a request may have 8 KiB.\n",
            ),
            Refused::Misdirected => (
                "421 Misdirected Request",
                "",
                "This is served to who asks for localhost, an IP address or the host name of the \
                 machine, so that no page elsewhere can read it. Use the address.\n",
            ),
            Refused::TooManyWatch => (
                "503 Service Unavailable",
                "Retry-After: 5\r\n",
                "As many pages as can be are open. Close one.\n",
            ),
            Refused::NoDaemon => (
                "503 Service Unavailable",
                "Retry-After: 1\r\n",
                "listend did not answer: it is being replaced, or has ended.\n",
            ),
        };
        let head = head(
            status,
            "text/plain; charset=utf-8",
            further,
            Some(words.len()),
        );
        (head + words).into_bytes()
    }
}

fn head(status: &str, content_type: &str, further: &str, length: Option<usize>) -> String {
    let length = length.map_or(String::new(), |length| {
        format!("Content-Length: {length}\r\n")
    });
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{length}{further}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\nX-Frame-Options: DENY\r\n\
         Connection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Site = Site {
        has_page: true,
        called: Some("Web01"),
    };

    fn get(text: &str) -> Option<Request> {
        parse(text.as_bytes(), ALL)
    }

    fn path(path: &str, host: &str) -> Request {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        get(&text).unwrap()
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
        use Refused::{BadRequest, MethodNotAllowed, Misdirected, NotFound, TooLarge};
        let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
        let long = format!("a: {}\r\n", "x".repeat(HEAD_MAX));
        for (text, why) in [
            ("GET /a HTTP/1.1\r\nHost: a\r\n\r\n", NotFound),
            (
                "GET http://localhost/ HTTP/1.1\r\nHost: a\r\n\r\n",
                NotFound,
            ),
            (
                "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                MethodNotAllowed,
            ),
            ("GET / HTTP/1.0\r\nHost: \r\n\r\n", Misdirected),
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

    #[test]
    fn the_page_is_for_who_calls_the_machine_by_a_name_that_is_its_own() {
        let page = Request::Page { head_only: false };
        for host in [
            "localhost",
            "localhost:9464",
            "LocalHost.",
            "app.localhost:80",
            "127.0.0.1:9464",
            "192.0.2.7",
            "[::1]:9464",
            "[::1]",
            "web01:9464",
            "WEB01",
        ] {
            assert_eq!(path("/", host), page, "{host}");
        }
        let refused = Request::Refused(Refused::Misdirected);
        for host in [
            "",
            "example.org",
            "example.org:9464",
            "localhost.example.org",
            "notlocalhost",
            "127.0.0.1.example.org",
            "127.1",
            "web01.example.org",
            "[::1",
            "[::1]x",
            "[localhost",
            "user@localhost",
        ] {
            for place in ["/", "/status.json", "/events"] {
                assert_eq!(path(place, host), refused, "{place} {host}");
            }
            let metrics = path("/metrics", host);
            assert!(matches!(metrics, Request::Metrics { .. }), "{host}");
        }
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let unix = Site {
            called: None,
            ..ALL
        };
        assert_eq!(parse(text, unix), Some(page));
    }

    #[test]
    fn where_only_metrics_are_served_the_page_is_not() {
        let site = Site {
            has_page: false,
            ..ALL
        };
        for place in ["/", "/status.json", "/events"] {
            let text = format!("GET {place} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let refused = Request::Refused(Refused::NoPage);
            assert_eq!(parse(text.as_bytes(), site), Some(refused), "{place}");
        }
    }

    #[test]
    fn who_watches_says_what_it_has_and_what_it_wants() {
        let watch = |target: &str, field: &str| {
            let text = format!("GET {target} HTTP/1.1\r\nHost: [::1]\r\n{field}\r\n");
            match get(&text) {
                Some(Request::Events(watch)) => (watch.since, watch.lines),
                other => panic!("{other:?}"),
            }
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watch("/events", ""), (None, None));
        assert_eq!(
            watch("/events?since=a-1&lines=listend%3Aweb", ""),
            (some("a-1"), some("listend:web"))
        );
        assert_eq!(watch("/events?lines=&x=1&since", ""), (None, None));
        // As in the URL Standard.
        assert_eq!(watch("/events?lines=%zz", ""), (None, some("%zz")));
        assert_eq!(watch("/events?lines=%f", ""), (None, some("%f")));
        assert_eq!(watch("/events?lines=%ff", ""), (None, None));
        // What the browser itself says is newer than the address it was given.
        assert_eq!(
            watch("/events?since=a-1", "Last-Event-ID: a-7\r\n"),
            (some("a-7"), None)
        );
    }

    #[test]
    fn nothing_is_kept_or_embedded_elsewhere_and_the_page_loads_nothing() {
        let page = String::from_utf8(found_page()).unwrap();
        for wanted in [
            "Content-Security-Policy: default-src 'none';",
            "frame-ancestors 'none'",
            "X-Content-Type-Options: nosniff\r\n",
            "Cache-Control: no-store\r\n",
            "Cross-Origin-Resource-Policy: same-origin\r\n",
        ] {
            assert!(page.contains(wanted), "{page}");
        }
        assert!(!page.contains("unsafe-"), "{page}");
        let events = String::from_utf8(found_events()).unwrap();
        assert!(events.contains("text/event-stream"), "{events}");
        assert!(!events.contains("Content-Length"), "{events}");
        assert!(!page.contains("Access-Control-Allow"), "{page}");
    }
}
