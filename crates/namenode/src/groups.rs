//! Who a caller is: name, groups, whether the superuser. Looked up once per user and believed for a
//! while, as HDFS's `Groups` does. Never runs a shell (CVE-2016-5393).
//!
//! A directory server that is slow or away holds up nobody who was known before: what is out of date is
//! believed until it has answered, as HDFS believes it, for ten times as long at most.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mobula_disk::Pool;
use mobula_namespace::Caller;
use mobula_net::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::config::GroupMapping;

/// Users whose groups are remembered at most, and as many who have none; above it the older half is forgotten.
const USERS_MAX: usize = 10_000;
/// Longer names are of nobody that an operating system knows.
const NAME_BYTES_MAX: usize = 255;
/// Groups that are out of date serve for so many times as long as they were to be believed (`GroupCacheLoader`'s
/// `expireAfterWrite`).
const STALE_TIMES: u64 = 10;
/// So long after a lookup began its callers are answered with what is out of date.
const PATIENCE_MS: u64 = 250;
/// Who could not be looked up is looked up again after so long.
const FAILED_TTL_MS: u64 = 10_000;

/// The lookup and its memory.
#[derive(Debug)]
pub struct Groups {
    mapping: GroupMapping,
    superuser: String,
    supergroup: String,
    ttl_ms: u64,
    clock: Clock,
    pool: Pool,
    memory: RwLock<Memory>,
    /// One lookup a user at a time.
    underway: Mutex<BTreeMap<Arc<str>, Lookup>>,
}

/// Kept apart, so that invented names push out nobody who has groups.
#[derive(Debug, Default)]
struct Memory {
    members: BTreeMap<Arc<str>, Known>,
    strangers: BTreeMap<Arc<str>, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    identity: Arc<Caller>,
    until_ms: u64,
}

#[derive(Clone, Debug)]
struct Lookup {
    begun_ms: u64,
    told: Arc<Told>,
}

/// What those hear who wait for a lookup, in the order in which they came: a channel of tokio's that many wait at wakes
/// them in none, and the simulator wants the same one each time.
#[derive(Debug, Default)]
struct Told {
    identity: OnceLock<Arc<Caller>>,
    ended: AtomicBool,
    wake: Notify,
}

/// Ends a lookup, even one that panics.
struct Teller(Arc<Told>);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.wake.notify_waiters();
    }
}

impl Told {
    /// Waits for the end; none if nobody could say.
    async fn wait(&self) -> Option<Arc<Caller>> {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.ended.load(Ordering::Acquire) {
                return self.identity.get().cloned();
            }
            woken.await;
        }
    }
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
            memory: RwLock::default(),
            underway: Mutex::default(),
        }
    }

    /// The caller, if known and fresh; without an address, which only commands need.
    pub fn cached(&self, user: &str) -> Option<Arc<Caller>> {
        let memory = self.memory.read();
        let entry = memory.get(user)?;
        (entry.until_ms > self.clock.monotonic_ms()).then(|| Arc::clone(&entry.identity))
    }

    /// The caller, looked up if need be. Waits for that without end only if nothing is known, or it is too old.
    pub async fn resolve(self: &Arc<Self>, user: &str) -> Arc<Caller> {
        let known = self.memory.read().get(user).cloned();
        let now_ms = self.clock.monotonic_ms();
        match known {
            Some(known) if known.until_ms > now_ms => known.identity,
            Some(known) if self.still_serves(&known, now_ms) => {
                let lookup = self.look_up(user);
                let patience = PATIENCE_MS.saturating_sub(now_ms - lookup.begun_ms.min(now_ms));
                let told = tokio::time::timeout(Duration::from_millis(patience), self.end_of(lookup, user));
                told.await.unwrap_or(known.identity)
            }
            _ => self.end_of(self.look_up(user), user).await,
        }
    }

    /// Forgets what is remembered (`refreshUserToGroupsMappings`).
    pub fn refresh(&self) {
        *self.memory.write() = Memory::default();
    }

    /// The lookup of that user that is under way; else it begins.
    fn look_up(self: &Arc<Self>, user: &str) -> Lookup {
        let mut underway = self.underway.lock();
        // One that has ended and is still here panicked.
        if let Some(lookup) = underway.get(user).filter(|lookup| !lookup.told.ended.load(Ordering::Acquire)) {
            return lookup.clone();
        }
        let lookup = Lookup { begun_ms: self.clock.monotonic_ms(), told: Arc::default() };
        let teller = Teller(Arc::clone(&lookup.told));
        let (groups, user) = (Arc::clone(self), Arc::<str>::from(user));
        underway.insert(Arc::clone(&user), lookup.clone());
        tokio::spawn(async move {
            let found = groups.ask(&user).await;
            let identity = groups.remember(&user, found);
            groups.underway.lock().remove(&user);
            _ = teller.0.identity.set(identity);
        });
        lookup
    }

    async fn end_of(&self, lookup: Lookup, user: &str) -> Arc<Caller> {
        let told = lookup.told.wait().await;
        told.unwrap_or_else(|| Arc::new(self.identity(user, Vec::new())))
    }

    /// The user's groups; none if nobody could say.
    async fn ask(&self, user: &str) -> Option<Vec<String>> {
        let name = user.to_owned();
        match &self.mapping {
            GroupMapping::Static(table) => Some(table.get(user).cloned().unwrap_or_default()),
            GroupMapping::Overrides(table) if table.contains_key(user) => table.get(user).cloned(),
            GroupMapping::System | GroupMapping::Overrides(_) => {
                self.pool.run(move || system_groups(&name)).await
            }
            GroupMapping::Ask(directory) => {
                let directory = directory.clone();
                self.pool.run(move || directory.groups_of(&name)).await
            }
        }
    }

    fn remember(&self, user: &Arc<str>, found: Option<Vec<String>>) -> Arc<Caller> {
        let mut memory = self.memory.write();
        let now_ms = self.clock.monotonic_ms();
        let Some(groups) = found else {
            let known = memory.get(user).filter(|known| self.still_serves(known, now_ms));
            let known = known.map(|known| Arc::clone(&known.identity));
            tracing::warn!(user = &**user, known = known.is_some(), "a user's groups could not be looked up");
            // What was known stays as old as it is.
            return known.unwrap_or_else(|| {
                let identity = Arc::new(self.identity(user, Vec::new()));
                let until_ms = now_ms + FAILED_TTL_MS.min(self.ttl_ms);
                memory.keep(user, Known { identity: Arc::clone(&identity), until_ms });
                identity
            });
        };
        let identity = Arc::new(self.identity(user, groups));
        memory.keep(
            user,
            Known { identity: Arc::clone(&identity), until_ms: now_ms.saturating_add(self.ttl_ms) },
        );
        identity
    }

    /// Whether it may be believed until it has been looked up again.
    fn still_serves(&self, known: &Known, now_ms: u64) -> bool {
        known.until_ms.saturating_add(self.ttl_ms.saturating_mul(STALE_TIMES - 1)) > now_ms
    }

    fn identity(&self, user: &str, groups: Vec<String>) -> Caller {
        let superuser = user == self.superuser || groups.contains(&self.supergroup);
        Caller { user: user.into(), groups, superuser, machine: String::new() }
    }
}

impl Memory {
    fn get(&self, user: &str) -> Option<&Known> {
        self.members.get(user).or_else(|| self.strangers.get(user))
    }

    fn keep(&mut self, user: &Arc<str>, known: Known) {
        let is_member = known.identity.superuser || !known.identity.groups.is_empty();
        let (theirs, others) = match is_member {
            true => (&mut self.members, &mut self.strangers),
            false => (&mut self.strangers, &mut self.members),
        };
        others.remove(user);
        if theirs.len() >= USERS_MAX {
            let mut ages: Vec<u64> = theirs.values().map(|known| known.until_ms).collect();
            let (_, middle, _) = ages.select_nth_unstable(USERS_MAX / 2);
            let middle = *middle;
            theirs.retain(|_, known| known.until_ms > middle);
        }
        theirs.insert(Arc::clone(user), known);
    }
}

/// The user's groups as the operating system knows them, primary first; empty for an unknown user, none if the
/// system could not say.
fn system_groups(user: &str) -> Option<Vec<String>> {
    use nix::errno::Errno;
    use nix::unistd::{Group, User, getgrouplist};
    if user.len() > NAME_BYTES_MAX {
        return Some(Vec::new());
    }
    let Ok(name) = CString::new(user) else { return Some(Vec::new()) };
    let entry = match User::from_name(user) {
        Ok(Some(entry)) => entry,
        // What getpwnam(3) has seen systems say of a name that is not there.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM | Errno::EINVAL) => {
            return Some(Vec::new());
        }
        Err(_) => return None,
    };
    let ids = getgrouplist(&name, entry.gid).ok()?;
    Some(
        ids.into_iter().filter_map(|id| Group::from_gid(id).ok().flatten()).map(|group| group.name).collect(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::config::GroupDirectory;
    use mobula_disk::RealDisk;

    fn groups(mapping: GroupMapping) -> Arc<Groups> {
        let pool = RealDisk::new().pool("groups", 1);
        Arc::new(Groups::new(mapping, "hdfs", "supergroup", 60_000, Clock::real(), pool))
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

    /// Hadoop's own default is `dr.who=;`, which is to take nobody else's groups.
    #[tokio::test]
    async fn a_table_of_some_leaves_the_others_to_the_system() {
        let table = [("dr.who".to_string(), Vec::new())].into_iter().collect();
        let (some, all) = (groups(GroupMapping::Overrides(table)), groups(GroupMapping::System));
        assert!(some.resolve("dr.who").await.groups.is_empty());
        let root = some.resolve("root").await;
        assert!(!root.groups.is_empty());
        assert_eq!(root.groups, all.resolve("root").await.groups);
    }

    #[tokio::test]
    async fn the_system_knows_root() {
        let groups = groups(GroupMapping::System);
        assert_eq!(groups.resolve("root").await.groups.first().map(String::as_str), Some("root"));
        assert!(groups.resolve(&"x".repeat(1 << 20)).await.groups.is_empty());
        assert!(groups.resolve("a\0b").await.groups.is_empty());
    }

    #[tokio::test]
    async fn one_lookup_serves_all_who_wait_and_invented_names_push_out_no_member() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let directory = GroupDirectory::new(move |user| {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(if user == "bob" { vec!["staff".into()] } else { Vec::new() })
        });
        let groups = groups(GroupMapping::Ask(directory));
        let (one, two) = tokio::join!(groups.resolve("bob"), groups.resolve("bob"));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        let stranger = Arc::new(groups.identity("x", Vec::new()));
        let mut memory = groups.memory.write();
        for number in 0..3 * USERS_MAX as u64 {
            let known = Known { identity: Arc::clone(&stranger), until_ms: number };
            memory.keep(&format!("invented-{number}").into(), known);
        }
        assert!(memory.strangers.len() <= USERS_MAX);
        drop(memory);
        assert!(groups.cached("bob").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_fails_takes_nobodys_groups_away_until_they_are_too_old() {
        let away = Arc::new(AtomicBool::new(false));
        let is_away = Arc::clone(&away);
        let directory =
            GroupDirectory::new(move |_| (!is_away.load(Ordering::Relaxed)).then(|| vec!["staff".into()]));
        let (mapping, clock) = (GroupMapping::Ask(directory), Clock::virtual_from(0));
        let groups = Groups::new(mapping, "hdfs", "supergroup", 1_000, clock, Pool::inline());
        let groups = Arc::new(groups);
        assert_eq!(groups.resolve("bob").await.groups, ["staff"]);
        away.store(true, Ordering::Relaxed);
        for (seconds, expected) in [(2, 1), (7, 1), (2, 0)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(groups.resolve("bob").await.groups.len(), expected, "{seconds} s later");
        }
        away.store(false, Ordering::Relaxed);
        tokio::time::advance(Duration::from_millis(FAILED_TTL_MS)).await;
        assert_eq!(groups.resolve("bob").await.groups, ["staff"]);
    }
}
