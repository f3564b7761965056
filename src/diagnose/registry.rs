//! IANA's registry of ports, in a file that `scripts/make-ports` makes.
//!
//! The text is searched as it stands. To parse it would cost every start a millisecond, for
//! something that few of them ask.

use serde::Serialize;

/// Sorted by port; the first lines say where it comes from.
const REGISTRY: &str = include_str!("ports.tsv");

/// An entry of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// The service's name, such as `postgresql`.
    pub name: &'static str,
    /// The transports it is registered for: `tcp`, `udp`, `sctp`, `dccp`.
    pub transports: Vec<&'static str>,
    /// The service in a few words; empty where the name says it.
    pub description: &'static str,
}

/// The entries of a port.
pub fn registrations(port: u16) -> Vec<Registration> {
    let lines = REGISTRY[first_line_of(port)..].lines();
    let of_port = lines.map_while(|line| entry(line).filter(|(found, _)| *found == port));
    of_port.map(|(_, registration)| registration).collect()
}

/// The description of the service with this name on this port; `None` where the registry has none, or
/// another name.
pub(super) fn description(port: u16, name: &str) -> Option<&'static str> {
    let all = registrations(port);
    let named = all.into_iter().find(|entry| entry.name == name)?;
    Some(named.description).filter(|words| !words.is_empty())
}

/// The port of the service with this name.
pub fn port_of(name: &str, transport: &str) -> Option<u16> {
    let transport = transport.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let mut all = REGISTRY.lines().filter_map(entry);
    let found = all.find(|(_, entry)| entry.name == name && entry.transports.contains(&transport));
    found.map(|(port, _)| port)
}

/// The offset of the first line whose port is not below this one.
fn first_line_of(port: u16) -> usize {
    let mut low = 0;
    let mut high = REGISTRY.len();
    // Both are starts of lines; what is before `low` is below the port, what is from `high` on is
    // not.
    while low < high {
        let middle = low + (high - low) / 2;
        let start = REGISTRY[..middle].rfind('\n').map_or(0, |at| at + 1);
        let end = REGISTRY[middle..]
            .find('\n')
            .map_or(REGISTRY.len(), |at| middle + at + 1);
        match entry(&REGISTRY[start..end]) {
            Some((found, _)) if found >= port => high = start,
            // A comment: they are all in front.
            _ => low = end,
        }
    }
    low
}

fn entry(line: &'static str) -> Option<(u16, Registration)> {
    let mut fields = line.trim_end_matches('\n').split('\t');
    let port = fields.next()?.parse().ok()?;
    let transports = fields.next()?.chars().filter_map(transport).collect();
    let name = fields.next()?;
    let description = fields.next().unwrap_or("");
    Some((
        port,
        Registration {
            name,
            transports,
            description,
        },
    ))
}

fn transport(letter: char) -> Option<&'static str> {
    match letter {
        't' => Some("tcp"),
        'u' => Some("udp"),
        's' => Some("sctp"),
        'd' => Some("dccp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_can_be_read_and_found() {
        let mut last = 0;
        let mut count = 0;
        for line in REGISTRY.lines().filter(|line| !line.starts_with('#')) {
            let (port, registration) = entry(line).expect(line);
            assert!(port >= last, "{line}");
            assert!(!registration.transports.is_empty(), "{line}");
            assert!(registrations(port).contains(&registration), "{line}");
            last = port;
            count += 1;
        }
        assert!(count > 6000, "{count}");
        assert!(REGISTRY.len() < 300_000);
        assert!(REGISTRY.lines().take(4).all(|line| line.starts_with('#')));
    }

    #[test]
    fn what_is_registered_is_told_and_nothing_else() {
        let ssh = registrations(22);
        assert_eq!(ssh.len(), 1);
        assert_eq!(
            (ssh[0].name, ssh[0].description),
            ("ssh", "The Secure Shell (SSH) Protocol")
        );
        assert_eq!(ssh[0].transports, ["tcp", "udp", "sctp"]);
        assert_eq!(registrations(512).len(), 2);
        assert_eq!(registrations(6063)[0].name, "x11");
        assert_eq!(registrations(0), []);
        assert_eq!(registrations(65535), []);
        assert_eq!(description(5432, "postgresql"), Some("PostgreSQL Database"));
        assert_eq!(description(5432, "postgres"), None);
        assert_eq!(description(23, "telnet"), None);
    }
}
