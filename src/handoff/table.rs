//! The table of dialects.

use super::dialect::Dialect;
use super::{einhorn, fd0, inetd, nginx, none, php_fpm, puma, server_starter, systemd};

/// Every dialect there is; the first is the default.
pub const ALL: &[&Dialect] = &[
    &systemd::DIALECT,
    &inetd::DIALECT,
    &fd0::DIALECT,
    &nginx::DIALECT,
    &server_starter::DIALECT,
    &einhorn::DIALECT,
    &php_fpm::DIALECT,
    &puma::DIALECT,
    &none::DIALECT,
];

impl Dialect {
    /// The dialect of this keyword.
    pub fn find(keyword: &str) -> Option<&'static Dialect> {
        ALL.iter()
            .copied()
            .find(|dialect| dialect.keyword == keyword)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{
        Descriptors, FdLayout, Handoff, Name, PidfdInode, Recipient, Socket, Stored, Value,
        belongs_to_a_handoff,
    };

    const TO: Recipient<'_> = Recipient {
        instance: 2,
        generation: 5,
        listend: 7,
        listen_pid: true,
        inode: PidfdInode::Tell,
        acknowledge_at: Some("/run/listend/control.einhorn"),
    };

    fn laid_out(
        dialect: &'static Dialect,
        sockets: &[Socket<'_>],
        connection: Option<i32>,
    ) -> FdLayout {
        let stored = [("cache", 40), ("state", 41)].map(|(name, fd)| Stored { name, fd });
        Handoff::one(dialect).layout(&Descriptors {
            sockets,
            connection,
            stored: &stored,
            below: Some(7),
            to: TO,
        })
    }

    fn socket<'a>(listener: &'a str, scheme: &'static str, name: Name<'a>) -> Socket<'a> {
        Socket {
            listener,
            fd: 30,
            scheme,
            name,
        }
    }

    #[test]
    fn what_every_dialect_lays_out_is_whole_and_scrubbed() {
        let web = [socket(
            "web",
            "tcp",
            Name::Inet(([127, 0, 0, 1], 80).into()),
        )];
        for dialect in ALL {
            for (sockets, connection) in [(&web[..], None), (&web[..], Some(50)), (&[], None)] {
                let layout = laid_out(dialect, sockets, connection);
                assert_eq!(layout.fds.len(), layout.targets.len(), "{dialect:?}");
                assert_eq!(layout.numbers.len(), sockets.len(), "{dialect:?}");
                for target in &layout.targets {
                    assert!(*target >= dialect.first_fd && *target < 7, "{dialect:?}");
                }
                for (name, _) in &layout.variables {
                    assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
                }
            }
            assert_eq!(Dialect::find(dialect.keyword), Some(*dialect));
        }
    }

    #[test]
    fn what_is_stored_goes_as_far_as_numbers_are_free() {
        let web = socket("web", "tcp", Name::Inet(([127, 0, 0, 1], 80).into()));
        let systemd = Dialect::find("systemd").expect("a dialect");
        // Below 7 there are 3 to 6.
        for (sockets, stored) in [(1, 2), (2, 2), (3, 1), (4, 0), (5, 0)] {
            let layout = laid_out(systemd, &vec![web; sockets], None);
            assert_eq!(layout.fds.len(), sockets + stored, "{sockets}");
        }
    }

    /// sun_path has 108 bytes and ends with a NUL (unix(7)).
    #[test]
    fn a_path_that_fills_the_address_can_be_told() {
        let nginx = Dialect::find("nginx").expect("a dialect");
        for (length, expected) in [(107, true), (108, false)] {
            let path = std::path::PathBuf::from(format!("/{}", "x".repeat(length - 1)));
            let socket = socket("app", "unix", Name::Path(&path));
            assert_eq!((nginx.check)(&socket).is_ok(), expected, "{length}");
        }
    }

    #[test]
    fn a_connection_is_told_of_in_the_same_way_whatever_the_instance() {
        for dialect in ALL.iter().filter(|dialect| dialect.connections) {
            let of = |instance, generation| {
                let inputs = Descriptors {
                    sockets: &[],
                    connection: Some(50),
                    stored: &[],
                    below: None,
                    to: Recipient {
                        instance,
                        generation,
                        listend: 7,
                        listen_pid: true,
                        inode: PidfdInode::Tell,
                        acknowledge_at: None,
                    },
                };
                Handoff::one(dialect).layout(&inputs)
            };
            assert_eq!(of(0, 1), of(8, 3), "{dialect:?}");
        }
    }

    /// Letter by letter, as the programs read them.
    #[test]
    fn the_variables_are_those_of_the_programs() {
        let path = std::path::Path::new("/run/p.sock");
        let sockets = [
            socket("web", "tcp", Name::Inet(([127, 0, 0, 1], 8000).into())),
            socket(
                "six",
                "tcp",
                Name::Inet("[::1]:8001".parse().expect("an address")),
            ),
            socket("app", "unix", Name::Path(path)),
        ];
        let cases: [(&str, &[&str]); 5] = [
            ("nginx", &["NGINX=3;4;5;", "ANGIE=3;4;5;"]),
            (
                "server-starter",
                &[
                    "SERVER_STARTER_PORT=127.0.0.1:8000=3;[::1]:8001=4;/run/p.sock=5",
                    "SERVER_STARTER_GENERATION=5",
                ],
            ),
            (
                "php-fpm",
                &["FPM_SOCKETS=127.0.0.1:8000=3,::1:8001=4,/run/p.sock=5"],
            ),
            (
                "puma",
                &[
                    "PUMA_INHERIT_0=3:tcp://127.0.0.1:8000",
                    "PUMA_INHERIT_1=4:tcp://[::1]:8001",
                    "PUMA_INHERIT_2=5:unix:///run/p.sock",
                ],
            ),
            (
                "einhorn",
                &[
                    "EINHORN_MASTER_PID=7",
                    "EINHORN_CHILD_INDEX=2",
                    "EINHORN_FD_COUNT=3",
                    "EINHORN_FDS=3 4 5",
                    "EINHORN_SOCK_PATH=/run/listend/control.einhorn",
                    "EINHORN_FD_0=3",
                    "EINHORN_FD_FAMILY_0=AF_INET",
                    "EINHORN_FD_1=4",
                    "EINHORN_FD_FAMILY_1=AF_INET6",
                    "EINHORN_FD_2=5",
                    "EINHORN_FD_FAMILY_2=AF_UNIX",
                ],
            ),
        ];
        for (keyword, expected) in cases {
            let dialect = Dialect::find(keyword).expect("a dialect");
            for socket in &sockets {
                assert_eq!((dialect.check)(socket), Ok(()), "{keyword}");
            }
            let told = laid_out(dialect, &sockets, None).variables.into_iter();
            let told = told.map(|(name, value)| match value {
                Value::Text(text) => format!("{name}={text}"),
                other => panic!("{other:?}"),
            });
            assert_eq!(told.collect::<Vec<_>>(), expected, "{keyword}");
        }
    }

    /// php-fpm reads 128 sockets from each variable.
    #[test]
    fn many_sockets_of_php_fpm_are_in_several_variables() {
        let web = socket("web", "tcp", Name::Inet(([127, 0, 0, 1], 80).into()));
        let fpm = Dialect::find("php-fpm").expect("a dialect");
        let told = laid_out(fpm, &vec![web; 300], None).variables;
        let told = told.iter().map(|(name, value)| match value {
            Value::Text(text) => (name.as_ref(), text.split(',').count()),
            other => panic!("{other:?}"),
        });
        let expected = [
            ("FPM_SOCKETS", 128),
            ("FPM_SOCKETS_1", 128),
            ("FPM_SOCKETS_2", 44),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_a_dialect_cannot_carry_is_refused_with_a_reason() {
        fn path(text: &str) -> Socket<'_> {
            socket("p", "unix", Name::Path(std::path::Path::new(text)))
        }
        let long = format!("/{}", "x".repeat(120));
        let udp = socket("d", "udp", Name::Inet(([127, 0, 0, 1], 53).into()));
        let named = socket("a", "unix", Name::Abstract("app"));
        for (keyword, socket, reason) in [
            ("nginx", udp, "not udp"),
            ("nginx", named, "abstract"),
            ("nginx", path(long.as_str()), "107 bytes"),
            ("server-starter", path("/run/a;b"), "`;`"),
            ("server-starter", path("/run/a=b"), "`=`"),
            ("php-fpm", path("/run/a,b"), "`,`"),
            ("php-fpm", path("/run/a:b"), "`:`"),
            ("php-fpm", socket("f", "fifo", Name::Other), "not fifo"),
            ("einhorn", udp, "not udp"),
            ("puma", udp, "not udp"),
        ] {
            let dialect = Dialect::find(keyword).expect("a dialect");
            let refused = (dialect.check)(&socket).expect_err("refused");
            assert!(refused.contains(reason), "{keyword}: {refused}");
            for dialect in ["systemd", "inetd", "fd0", "none"] {
                let dialect = Dialect::find(dialect).expect("a dialect");
                assert_eq!((dialect.check)(&socket), Ok(()));
            }
        }
    }
}
