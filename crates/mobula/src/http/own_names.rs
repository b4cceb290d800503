//! The names by which this machine is meant. A browser takes a page for ours if its host is the one that is asked, and
//! whoever gives out names can make any of theirs mean an address of ours: only names count that they cannot have.

use std::net::IpAddr;
use std::path::Path;

use crate::config::own_host_name;

/// The names, besides addresses and `localhost`: what the configuration calls this NameNode, the machine's host name, and
/// what stands beside that in its own file of hosts, as the name with the domain does. None that a resolver was asked for.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Vec<String>);

impl OwnNames {
    /// The machine's own, and those that are configured.
    pub fn of_system(configured: Vec<String>) -> OwnNames {
        let hosts = std::fs::read_to_string(Path::new("/etc/hosts")).unwrap_or_default();
        OwnNames::of(configured, own_host_name(), &hosts)
    }

    fn of(configured: Vec<String>, host_name: Option<String>, hosts: &str) -> OwnNames {
        let mut names = configured;
        let own = host_name.unwrap_or_default();
        let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or(""));
        for line in lines {
            let beside = || line.split_whitespace().skip(1);
            if beside().any(|name| name.eq_ignore_ascii_case(&own)) {
                names.extend(beside().map(String::from));
            }
        }
        names.push(own);
        OwnNames(names)
    }

    /// Whether `host` (with or without a port) is an address or one of these names.
    pub fn has(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        // A name may end with the root's dot.
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_own = |own: &String| !own.is_empty() && name.eq_ignore_ascii_case(own);
        bare.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost") || self.0.iter().any(is_own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_else_gives_out() {
        let hosts =
            "127.0.0.1 localhost\n127.0.1.1\tnn1.example.org nn1 # nn1.comment\n0.0.0.0 ads.example\n";
        let own = OwnNames::of(vec!["nn.cluster".into()], Some("nn1".into()), hosts);
        for host in ["nn1", "NN1:9870", "nn1.example.org:9870", "nn1.example.org.", "nn.cluster", "[::1]:1"] {
            assert!(own.has(host), "{host}");
        }
        for host in ["", ".", "nn1.evil.example", "nn1.comment", "ads.example", "evil.example:9870", "nn"] {
            assert!(!own.has(host), "{host}");
        }
        assert!(!OwnNames::of(Vec::new(), None, "127.0.0.1 localhost evil\n").has(""));
    }
}
