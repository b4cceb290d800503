//! Who a caller is: name, groups, whether the superuser. Looked up once per user and believed for a
//! while, as HDFS's `Groups` does. Never runs a shell (CVE-2016-5393).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use mobula_disk::Pool;
use mobula_namespace::Caller;
use mobula_net::Clock;
use parking_lot::RwLock;

use crate::config::GroupMapping;

/// Users whose groups are remembered at most; above it the table starts again.
const USERS_MAX: usize = 10_000;
/// Longer names are of nobody that an operating system knows.
const NAME_BYTES_MAX: usize = 255;

/// The lookup and its memory.
#[derive(Debug)]
pub struct Groups {
    mapping: GroupMapping,
    superuser: String,
    supergroup: String,
    ttl_ms: u64,
    clock: Clock,
    pool: Pool,
    known: RwLock<BTreeMap<Arc<str>, Known>>,
}

#[derive(Debug)]
struct Known {
    identity: Arc<Caller>,
    until_ms: u64,
}

impl Groups {
    /// `pool` runs lookups in the operating system's database, which may block on a directory server.
    pub fn new(
        mapping: GroupMapping,
        superuser: &str,
        supergroup: &str,
        ttl_ms: u64,
        clock: Clock,
        pool: Pool,
    ) -> Groups {
        Groups {
            mapping,
            superuser: superuser.into(),
            supergroup: supergroup.into(),
            ttl_ms,
            clock,
            pool,
            known: RwLock::new(BTreeMap::new()),
        }
    }

    /// The caller, if known and fresh; without an address, which only commands need.
    pub fn cached(&self, user: &str) -> Option<Arc<Caller>> {
        let known = self.known.read();
        let entry = known.get(user)?;
        (entry.until_ms > self.clock.monotonic_ms()).then(|| Arc::clone(&entry.identity))
    }

    /// The caller, looked up if need be.
    pub async fn resolve(&self, user: &str) -> Arc<Caller> {
        if let Some(identity) = self.cached(user) {
            return identity;
        }
        let groups = match &self.mapping {
            GroupMapping::Static(table) => table.get(user).cloned().unwrap_or_default(),
            GroupMapping::System => {
                let name = user.to_owned();
                self.pool.run(move || system_groups(&name)).await
            }
        };
        let identity = Arc::new(self.identity(user, groups));
        let mut known = self.known.write();
        if known.len() >= USERS_MAX {
            known.clear();
        }
        let until_ms = self.clock.monotonic_ms() + self.ttl_ms;
        known.insert(user.into(), Known { identity: Arc::clone(&identity), until_ms });
        identity
    }

    /// Forgets what is remembered (`refreshUserToGroupsMappings`).
    pub fn refresh(&self) {
        self.known.write().clear();
    }

    fn identity(&self, user: &str, groups: Vec<String>) -> Caller {
        let superuser = user == self.superuser || groups.contains(&self.supergroup);
        Caller { user: user.into(), groups, superuser, machine: String::new() }
    }
}

/// The user's groups as the operating system knows them, primary first; none for an unknown user.
fn system_groups(user: &str) -> Vec<String> {
    use nix::unistd::{Group, User, getgrouplist};
    if user.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    let (Ok(Some(entry)), Ok(name)) = (User::from_name(user), CString::new(user)) else {
        return Vec::new();
    };
    let Ok(ids) = getgrouplist(&name, entry.gid) else {
        return Vec::new();
    };
    ids.into_iter().filter_map(|id| Group::from_gid(id).ok().flatten()).map(|group| group.name).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mobula_disk::RealDisk;

    fn groups(mapping: GroupMapping) -> Groups {
        let pool = RealDisk::new().pool("groups", 1);
        Groups::new(mapping, "hdfs", "supergroup", 1_000, Clock::real(), pool)
    }

    #[tokio::test]
    async fn a_table_names_groups_and_the_supergroup_makes_superusers() {
        let table = [("bob", vec!["staff".to_string()]), ("root", vec!["supergroup".to_string()])];
        let table = table.into_iter().map(|(user, groups)| (user.to_string(), groups)).collect();
        let groups = groups(GroupMapping::Static(table));
        assert!(groups.cached("bob").is_none());
        assert_eq!(groups.resolve("bob").await.groups, ["staff"]);
        assert!(!groups.cached("bob").unwrap().superuser);
        assert!(groups.resolve("root").await.superuser);
        assert!(groups.resolve("hdfs").await.superuser);
        assert!(groups.resolve("nobody-knows").await.groups.is_empty());
        groups.refresh();
        assert!(groups.cached("bob").is_none());
    }

    #[tokio::test]
    async fn the_system_knows_root() {
        let groups = groups(GroupMapping::System);
        assert_eq!(groups.resolve("root").await.groups.first().map(String::as_str), Some("root"));
        assert!(groups.resolve(&"x".repeat(1 << 20)).await.groups.is_empty());
        assert!(groups.resolve("a\0b").await.groups.is_empty());
    }
}
