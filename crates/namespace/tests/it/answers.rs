//! At most once, against a naive model: whatever the order in which calls come, overtake each other and are retried, in
//! whatever batches, over crashes too, a call gets its first answer for ten minutes, and is made again after that.

use std::collections::BTreeMap;

use mobula_namespace::retry::RETRY_AGE_MS_MAX;
use mobula_namespace::{Command, Namespace, Operation, Outcome, RetryKey};
use mobula_types::{ClientId, InodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Fixture, create, path, superuser};

const BATCHES: usize = 150;

struct Model {
    rng: SmallRng,
    /// When each call was answered first, and with which file.
    answers: BTreeMap<RetryKey, (u64, InodeId)>,
    next: BTreeMap<ClientId, i32>,
    files: usize,
}

impl Model {
    fn key(&mut self) -> RetryKey {
        let client = ClientId([self.rng.random_range(1..4); 16]);
        let next = self.next.entry(client).or_insert(-3);
        let call = match self.rng.random_range(0..20) {
            // Anything that came before, or just not: a retry, or a call that was overtaken.
            0..5 => *next - self.rng.random_range(0..400),
            5 => [i32::MAX, i32::MIN, -1, 0][self.rng.random_range(0..4)],
            6 => {
                *next += self.rng.random_range(0..300);
                *next
            }
            _ => {
                *next += 1;
                *next
            }
        };
        RetryKey { client, call }
    }

    /// A file that no call has made yet: who makes it again is refused.
    fn command(&mut self) -> Command {
        self.files += 1;
        let operation = create(&format!("/f{}", self.files), "c");
        Command { caller: superuser(), retry: Some(self.key()), operation }
    }

    fn check(&mut self, key: RetryKey, now: u64, outcome: &Outcome) {
        let Outcome::Status(status) = outcome else { panic!("create was answered {outcome:?}") };
        match self.answers.get(&key) {
            Some((then, first)) if now - then <= RETRY_AGE_MS_MAX.0 => {
                assert_eq!(status.inode, *first, "{key:?} was answered {} ms ago", now - then);
            }
            _ => {
                let new = self.answers.values().all(|(_, inode)| *inode != status.inode);
                assert!(new, "{key:?} is answered with a file that another call made: {}", status.inode);
                self.answers.insert(key, (now, status.inode));
            }
        }
    }
}

fn run(seed: u64) {
    let mut fixture = Fixture::new();
    let rng = SmallRng::seed_from_u64(seed);
    let mut model = Model { rng, answers: BTreeMap::new(), next: BTreeMap::new(), files: 0 };
    for _ in 0..BATCHES {
        fixture.now += match model.rng.random_range(0..10) {
            0 => model.rng.random_range(0..RETRY_AGE_MS_MAX.0),
            _ => model.rng.random_range(0..30_000),
        };
        let count = model.rng.random_range(1..90);
        let commands: Vec<Command> = (0..count).map(|_| model.command()).collect();
        let keys: Vec<RetryKey> = commands.iter().filter_map(|command| command.retry).collect();
        let answers = fixture.batch(commands);
        for (key, answer) in keys.into_iter().zip(answers) {
            model.check(key, fixture.now, &answer.outcome.unwrap());
        }
        if model.rng.random_bool(0.1) {
            fixture.namespace.sync().unwrap();
            let storage = fixture.storage.crash();
            fixture.namespace = Namespace::open(storage.clone(), 1 << 20).unwrap();
            fixture.storage = storage;
        }
    }
}

#[test]
fn a_call_gets_its_first_answer_for_ten_minutes() {
    let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(0..6, |seed: u64| seed..seed + 1) {
        println!("replay: MOBULA_SEED={seed} cargo test -p mobula-namespace --test it answers::");
        run(seed);
    }
}

#[test]
fn old_answers_go_and_leave_nothing_behind() {
    let key = |client: u8, call| Some(RetryKey { client: ClientId([client; 16]), call });
    let change = |fixture: &mut Fixture, key: Option<RetryKey>| {
        let operation = Operation::SetPermission { path: path("/"), mode: 0o755 };
        assert_eq!(fixture.apply(&superuser(), key, operation).outcome, Ok(Outcome::Done));
    };
    let hash = |fixture: &Fixture| fixture.namespace.state_hash().unwrap();
    let (mut one, mut other) = (Fixture::new(), Fixture::new());
    for call in 0..500 {
        change(&mut one, key((call % 3) as u8, call * 7 % 499));
        change(&mut other, key(9, call));
    }
    assert_ne!(hash(&one), hash(&other), "the answers are there");
    // A batch forgets some 64 answers.
    for _ in 0..20 {
        for fixture in [&mut one, &mut other] {
            fixture.now += RETRY_AGE_MS_MAX.0 / 10;
            change(fixture, None);
        }
    }
    assert_eq!(hash(&one), hash(&other), "nothing is left of either's answers, nor of their count");
}

#[test]
fn tables_of_the_layout_before_are_opened_without_their_answers() {
    type Bytes = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;
    let mut fixture = Fixture::new();
    let key = |call| Some(RetryKey { client: ClientId([4; 16]), call });
    let first = fixture.create("/f", "c");
    fixture.namespace.sync().unwrap();
    let storage = fixture.storage.crash();
    {
        let database = redb::Builder::new().create_with_backend(storage.clone()).unwrap();
        let transaction = database.begin_write().unwrap();
        let old = [&[4; 16][..], &5u32.to_be_bytes()].concat();
        transaction.open_table(Bytes::new("meta")).unwrap().insert(&b"layout"[..], &[2][..]).unwrap();
        transaction.open_table(Bytes::new("retry")).unwrap().insert(&old[..], &[1, 1][..]).unwrap();
        transaction.commit().unwrap();
    }
    fixture.namespace = Namespace::open(storage.clone(), 1 << 20).unwrap();
    let made = fixture.apply(&superuser(), key(5), create("/g", "c")).outcome.unwrap();
    let Outcome::Status(made) = made else { panic!("create was answered {made:?}") };
    assert_ne!(made.inode, first);
    fixture.namespace.sync().unwrap();
    fixture.namespace = Namespace::open(storage.crash(), 1 << 20).unwrap();
    let again = fixture.apply(&superuser(), key(5), create("/g", "c")).outcome;
    assert_eq!(again, Ok(Outcome::Status(made)), "and from then on they are kept");
}
