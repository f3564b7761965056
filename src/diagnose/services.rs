//! Well-known services by port, as IANA registers them or as everybody runs them.
//!
//! Only what people really meet; the whole registry would turn advice into noise. Web ports are
//! not in it: a listener on 80, 443, 8000, 8080, 8443 or 8888 surprises nobody.

/// A service and the words that show that a listener means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) port: u16,
    pub(super) name: &'static str,
    /// Words in the name of a listener, or in a worker's name or command.
    pub(super) aliases: &'static [&'static str],
}

macro_rules! services {
    ($($port:literal $name:literal $($alias:literal)*;)*) => {
        &[$(Service { port: $port, name: $name, aliases: &[$($alias),*] },)*]
    };
}

/// Sorted by port.
const SERVICES: &[Service] = services! {
    7 "echo";
    9 "discard";
    19 "chargen";
    20 "ftp-data" "ftp";
    21 "ftp";
    22 "ssh" "sftp" "dropbear";
    23 "telnet";
    25 "smtp" "mail" "postfix" "exim" "mta";
    37 "time";
    43 "whois";
    49 "tacacs";
    53 "domain" "dns" "named" "bind" "unbound" "knot" "resolve";
    67 "dhcp" "bootp";
    68 "dhcp" "bootp";
    69 "tftp";
    70 "gopher";
    79 "finger";
    88 "kerberos" "krb" "kdc";
    110 "pop3" "dovecot" "mail";
    111 "sunrpc" "rpcbind" "portmap";
    113 "ident" "auth";
    119 "nntp" "news";
    123 "ntp" "chrony";
    137 "netbios" "nmbd" "samba";
    138 "netbios" "nmbd" "samba";
    139 "netbios" "smb" "samba";
    143 "imap" "dovecot" "mail";
    161 "snmp";
    162 "snmptrap" "snmp";
    179 "bgp" "bird" "frr";
    194 "irc";
    389 "ldap" "slapd";
    427 "svrloc" "slp";
    445 "microsoft-ds" "smb" "samba" "cifs";
    464 "kpasswd" "kerberos" "krb";
    465 "submissions" "smtp" "mail" "postfix" "exim";
    500 "isakmp" "ike" "ipsec" "swan";
    512 "exec" "rexec";
    513 "login" "rlogin";
    514 "syslog" "rsyslog" "shell" "log";
    515 "printer" "lpd";
    520 "rip" "router";
    543 "klogin";
    546 "dhcpv6" "dhcp";
    547 "dhcpv6" "dhcp";
    548 "afp" "netatalk";
    554 "rtsp" "camera" "stream";
    587 "submission" "smtp" "mail" "postfix" "exim";
    623 "ipmi" "rmcp";
    631 "ipp" "cups" "print";
    636 "ldaps" "ldap" "slapd";
    853 "domain-s" "dns" "dot" "unbound" "knot";
    873 "rsync";
    989 "ftps-data" "ftp";
    990 "ftps" "ftp";
    993 "imaps" "imap" "dovecot" "mail";
    995 "pop3s" "pop3" "dovecot" "mail";
    1080 "socks" "proxy" "dante";
    1194 "openvpn" "vpn";
    1433 "ms-sql-s" "mssql" "sql";
    1521 "oracle" "tns";
    1701 "l2tp" "vpn";
    1723 "pptp" "vpn";
    1812 "radius";
    1813 "radius-acct" "radius";
    1883 "mqtt" "mosquitto" "emqx";
    1900 "ssdp" "upnp";
    2049 "nfs";
    2181 "zookeeper" "zk";
    2375 "docker";
    2376 "docker-s" "docker";
    2379 "etcd";
    2380 "etcd-server" "etcd";
    3128 "squid" "proxy";
    3260 "iscsi" "target";
    3306 "mysql" "maria" "sql";
    3389 "ms-wbt-server" "rdp";
    3478 "stun" "turn";
    3690 "svn" "subversion";
    4222 "nats";
    4369 "epmd" "erlang";
    4789 "vxlan";
    5004 "rtp";
    5060 "sip" "asterisk" "kamailio";
    5061 "sips" "sip" "asterisk" "kamailio";
    5222 "xmpp-client" "xmpp" "jabber" "prosody";
    5269 "xmpp-server" "xmpp" "jabber" "prosody";
    5353 "mdns" "avahi";
    5355 "llmnr" "resolve";
    5432 "postgresql" "postgres" "pgsql" "pgbouncer" "pg" "sql";
    5671 "amqps" "amqp" "rabbit";
    5672 "amqp" "rabbit";
    5900 "vnc" "rfb";
    5984 "couchdb" "couch";
    6000 "x11" "xorg";
    6379 "redis" "valkey" "keydb";
    6443 "kubernetes" "kube" "k8s" "k3s";
    6667 "irc";
    6697 "ircs" "irc";
    8086 "influxdb" "influx";
    8883 "secure-mqtt" "mqtt" "mosquitto" "emqx";
    9042 "cassandra" "scylla";
    9092 "kafka" "redpanda";
    9200 "elasticsearch" "elastic" "opensearch" "search";
    9418 "git";
    10250 "kubelet" "kube";
    11211 "memcache";
    15672 "rabbitmq-management" "rabbit";
    25565 "minecraft";
    27017 "mongodb" "mongo";
    51820 "wireguard" "wg";
};

/// The service that a port is registered for.
pub(super) fn at(port: u16) -> Option<&'static Service> {
    let index = SERVICES.binary_search_by_key(&port, |service| service.port);
    index.ok().map(|index| &SERVICES[index])
}

impl Service {
    /// Whether a text in lower case speaks of this service.
    pub(super) fn is_meant_by(&self, text: &str) -> bool {
        text.contains(self.name) || self.aliases.iter().any(|alias| text.contains(alias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_web_ports() {
        assert!(SERVICES.is_sorted_by(|one, other| one.port < other.port));
        for web in [80, 443, 8000, 8080, 8443, 8888] {
            assert_eq!(at(web), None);
        }
    }

    #[test]
    fn a_listener_that_means_the_service_is_recognised() {
        let postgres = at(5432).unwrap();
        assert_eq!(postgres.name, "postgresql");
        assert!(postgres.is_meant_by("pgbouncer"));
        assert!(!postgres.is_meant_by("web"));
    }
}
