//! Who may speak in whose name: HDFS's `DefaultImpersonationProvider`, `AccessControlList` and `MachineList`. By default
//! nobody, in nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mobula_wire::remote::{RemoteException, class};

/// What all are meant by.
const EVERYBODY: &str = "*";
/// Before a name in a list of users: whoever that user speaks for (`AccessControlList.USE_REAL_ACLS`).
const REAL_USER: &str = "~";

/// The rules, by who speaks (`hadoop.proxyuser.NAME.*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impersonation(pub BTreeMap<String, Proxy>);

/// In whose name a user may speak, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// `.users`.
    pub users: Names,
    /// `.groups`: of the users in whose name they speak.
    pub groups: Names,
    /// `.hosts`.
    pub hosts: Hosts,
}

/// Names of users or groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All there are.
    All,
    /// These.
    These(BTreeSet<String>),
}

impl Default for Names {
    fn default() -> Names {
        Names::These(BTreeSet::new())
    }
}

impl Names {
    /// Names with commas between; `*` alone means all.
    pub fn parse(list: &str) -> Names {
        if list.trim() == EVERYBODY {
            return Names::All;
        }
        Names::These(trimmed(list).map(str::to_owned).collect())
    }

    fn is_empty(&self) -> bool {
        matches!(self, Names::These(names) if names.is_empty())
    }

    fn have(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.contains(name),
        }
    }
}

/// Where somebody may come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    all: bool,
    addresses: BTreeSet<IpAddr>,
    networks: Vec<Network>,
}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Hosts {
    /// Addresses, networks as `10.0.0.0/8`, and names, with commas between; `*` alone means all. `resolve` tells a name's
    /// addresses, at once and for good, as in HDFS; a name that has none stands for nobody.
    ///
    /// # Errors
    /// A network that is none.
    pub fn parse(list: &str, mut resolve: impl FnMut(&str) -> Vec<IpAddr>) -> Result<Hosts, String> {
        if list.trim() == EVERYBODY {
            return Ok(Hosts { all: true, ..Hosts::default() });
        }
        let mut hosts = Hosts::default();
        for entry in trimmed(list) {
            if entry.contains('/') {
                let network = Network::parse(entry);
                hosts
                    .networks
                    .push(network.ok_or_else(|| format!("'{entry}' is no network such as 10.0.0.0/8"))?);
            } else if let Ok(address) = entry.parse() {
                hosts.addresses.insert(address);
            } else {
                hosts.addresses.extend(resolve(entry));
            }
        }
        Ok(hosts)
    }

    fn have(&self, address: IpAddr) -> bool {
        // A client of IPv4 at a socket of IPv6.
        let address = address.to_canonical();
        let within = || self.networks.iter().any(|network| network.has(address));
        self.all || self.addresses.contains(&address) || within()
    }
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Network { address, bits })
    }

    fn has(&self, other: IpAddr) -> bool {
        let (differing, width) = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u128::from(own.to_bits() ^ other.to_bits()), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits(), 128),
            _ => return false,
        };
        differing.checked_shr(width - self.bits).unwrap_or(0) == 0
    }
}

fn trimmed(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|text| !text.is_empty())
}

impl Impersonation {
    /// Whether the groups of `user` must be known to say whether `real_user` may speak for them.
    pub fn asks_for_groups(&self, real_user: &str) -> bool {
        self.0.get(real_user).is_some_and(|proxy| !proxy.groups.is_empty())
    }

    /// Whether `real_user`, who comes from `address`, may speak for `user`, who has `groups`.
    ///
    /// # Errors
    /// HDFS's words.
    pub fn check(
        &self,
        real_user: &str,
        user: &str,
        groups: &[String],
        address: IpAddr,
    ) -> Result<(), RemoteException> {
        let proxy = self.0.get(real_user).filter(|proxy| proxy.may_be(real_user, user, groups));
        let Some(proxy) = proxy else { return Err(mobula_rpc::may_not_impersonate(real_user, user)) };
        if proxy.hosts.have(address) {
            return Ok(());
        }
        let words = format!("Unauthorized connection for super-user: {real_user} from IP /{address}");
        Err(RemoteException::new(class::AUTHORIZATION, words))
    }
}

impl Proxy {
    fn may_be(&self, own: &str, user: &str, groups: &[String]) -> bool {
        // Either list may say all, of the other one.
        let everybody = self.users == Names::All || self.groups == Names::All;
        everybody
            || self.users.have(user)
            || groups.iter().any(|group| self.groups.have(group))
            || self.users.have(&format!("{REAL_USER}{own}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hosts(list: &str) -> Hosts {
        Hosts::parse(list, |name| if name == "gate" { vec!["10.9.9.9".parse().unwrap()] } else { Vec::new() })
            .unwrap()
    }

    fn have(hosts: &Hosts, address: &str) -> bool {
        hosts.have(address.parse().unwrap())
    }

    #[test]
    fn hosts_are_addresses_networks_and_names() {
        assert!(have(&hosts("*"), "1.2.3.4") && !have(&hosts(""), "1.2.3.4"));
        let some = hosts("10.1.0.0/16, 127.0.0.1,gate , nowhere,fd00::/8");
        for (address, yes) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("10.9.9.9", true),
            ("fd12::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(have(&some, address), yes, "{address}");
        }
        assert!(have(&hosts("0.0.0.0/0"), "9.9.9.9") && !have(&hosts("1.2.3.4/32"), "1.2.3.5"));
        // Among others it is a host of that name, as in HDFS.
        assert!(!have(&hosts("*,gate"), "1.2.3.4"));
        for bad in ["10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/", "/", "::/129"] {
            assert!(Hosts::parse(bad, |_| Vec::new()).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_or_groups_and_the_place_must_fit() {
        let proxy = |users: &str, groups: &str, at: &str| Proxy {
            users: Names::parse(users),
            groups: Names::parse(groups),
            hosts: hosts(at),
        };
        let rules = [
            ("oozie", proxy("carol, dave", "staff", "127.0.0.1")),
            ("hue", proxy("", "*", "*")),
            ("far", proxy("*", "", "10.0.0.0/8")),
            ("real", proxy("~real", "", "*")),
            ("nowhere", proxy("*", "", "")),
        ];
        let rules = Impersonation(rules.map(|(name, proxy)| (name.to_owned(), proxy)).into());
        let say = |real: &str, user: &str, groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let said = rules.check(real, user, &groups, "127.0.0.1".parse().unwrap());
            said.map_err(|exception| exception.message)
        };
        let may_not =
            |real: &str, user: &str| Err(format!("User: {real} is not allowed to impersonate {user}"));
        assert_eq!(say("oozie", "carol", &[]), Ok(()));
        assert_eq!(say("oozie", "erin", &["guests", "staff"]), Ok(()));
        assert_eq!(say("oozie", "erin", &["guests"]), may_not("oozie", "erin"));
        assert_eq!(say("hue", "erin", &[]), Ok(()));
        assert_eq!(say("real", "anybody", &[]), Ok(()));
        assert_eq!(say("mallory", "carol", &[]), may_not("mallory", "carol"));
        for real in ["far", "nowhere"] {
            let words = format!("Unauthorized connection for super-user: {real} from IP /127.0.0.1");
            assert_eq!(say(real, "carol", &[]), Err(words));
        }
        assert!(rules.asks_for_groups("oozie") && !rules.asks_for_groups("real"));
        assert!(!rules.asks_for_groups("mallory"));
    }
}
