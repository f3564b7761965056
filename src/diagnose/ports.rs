//! Sets of ports, as `net.ipv4.ip_local_reserved_ports` writes them: `8080,9000-9010`.

/// Ranges of ports, both ends included, sorted and merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Reads the kernel's text; what is no port is left out.
    pub(super) fn parse(text: &str) -> PortSet {
        let ranges = text.trim().split(',').filter_map(|piece| {
            let (low, high) = piece.split_once('-').unwrap_or((piece, piece));
            Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
        });
        PortSet::of(ranges.collect())
    }

    fn of(mut ranges: Vec<(u16, u16)>) -> PortSet {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        PortSet(merged)
    }

    /// Whether the port is in it.
    pub(super) fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(low, _)| *low <= port);
        after > 0 && self.0[after - 1].1 >= port
    }

    /// The set with these ports added.
    pub(super) fn with(&self, ports: impl IntoIterator<Item = u16>) -> PortSet {
        let mut ranges = self.0.clone();
        ranges.extend(ports.into_iter().map(|port| (port, port)));
        PortSet::of(ranges)
    }
}

/// Ports in the notation of sysctl(8).
impl std::fmt::Display for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (low, high)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_merged_with_what_is_there() {
        let there = PortSet::parse("9000-9010,8080\n");
        assert!(there.contains(9010) && there.contains(8080) && !there.contains(9011));
        assert_eq!(
            there.with([9011, 40000]).to_string(),
            "8080,9000-9011,40000"
        );
        assert_eq!(PortSet::parse("\n").with([65535]).to_string(), "65535");
    }
}
