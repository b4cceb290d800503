//! Large directories, large trees, long names, deep paths.

use std::collections::{BTreeMap, BTreeSet};

use mobula_namespace::{Command, FileKind, Operation, Outcome};

use crate::fixture::{Fixture, create, delete, mkdirs, path, superuser, user};

const DIRECTORY: usize = 100_000;

fn fill(fixture: &mut Fixture, count: usize, name: impl Fn(usize) -> String) {
    for start in (0..count).step_by(1000) {
        let commands = (start..(start + 1000).min(count))
            .map(|index| Command { caller: superuser(), retry: None, operation: create(&name(index), "c") })
            .collect();
        assert!(fixture.batch(commands).iter().all(|applied| applied.outcome.is_ok()));
    }
}

/// Pages through a directory and returns how many names there were, all different and in order.
fn page_through(fixture: &Fixture, directory: &str) -> usize {
    let view = fixture.namespace.view();
    let mut after: Vec<u8> = Vec::new();
    let mut seen = 0;
    loop {
        let page = view.listing(&superuser(), &path(directory), &after, 1000).unwrap().unwrap();
        for entry in &page.entries {
            assert!(entry.name > after, "in order, none twice");
            after.clone_from(&entry.name);
        }
        seen += page.entries.len();
        if page.remaining == 0 {
            return seen;
        }
        assert!(!page.entries.is_empty(), "more is promised, so there is a cursor");
    }
}

#[test]
fn a_large_directory_in_pages() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, DIRECTORY, |index| format!("/d/file{index}"));
    assert_eq!(page_through(&fixture, "/d"), DIRECTORY);
    let status = fixture.namespace.view().status(&superuser(), &path("/d")).unwrap().unwrap();
    assert_eq!(status.kind, FileKind::Directory { children: DIRECTORY as u64 });
}

#[test]
fn a_million_names_in_one_directory() {
    let mut fixture = Fixture::with(|format| format.rules.directory_items_max = 1_000_000);
    fill(&mut fixture, 1_000_000, |index| format!("/d/file{index}"));
    assert_eq!(page_through(&fixture, "/d"), 1_000_000);
    let error = fixture.run(&superuser(), create("/d/one-more", "c")).unwrap_err();
    assert_eq!(error.to_string(), "The directory item limit of /d is exceeded: limit=1000000 items=1000000");
}

#[test]
fn a_large_tree_goes_in_steps_while_others_work() {
    const FILES: usize = 100_000;
    let mut fixture = Fixture::new();
    fill(&mut fixture, FILES, |index| format!("/tree/{}/{}/f{index}", index % 7, index % 911));
    let (inode, block) = fixture.write("/tree/1/1/data", 5);
    let open = fixture.create("/tree/2/open", "c");
    assert_eq!(fixture.run(&superuser(), delete("/tree")), Ok(Outcome::Bool(true)));
    let view = fixture.namespace.view();
    assert!(view.status(&superuser(), &path("/tree")).unwrap().is_none(), "gone at once, by path");
    assert!(view.status(&superuser(), &path("/tree/1/1/data")).unwrap().is_none());
    assert_eq!(view.path_of(inode).unwrap(), None, "and by id");
    assert!(view.open_files(mobula_types::InodeId(0), 10).unwrap().is_empty());
    assert!(view.counts().pending_reap > 0);
    let complete = Operation::Complete { path: path("/x"), file: Some(open), holder: "c".into(), last: None };
    assert!(
        fixture.run(&superuser(), complete).unwrap_err().to_string().starts_with("File does not exist: /x")
    );
    assert_eq!(fixture.run(&superuser(), mkdirs("/tree/1/1")), Ok(Outcome::Bool(true)), "its name is free");

    let mut removed = BTreeSet::new();
    let mut steps = 0;
    while fixture.namespace.view().counts().pending_reap > 0 {
        let before = fixture.namespace.view().counts().inodes;
        let applied = fixture.apply(&superuser(), None, Operation::Reap { inodes: 1000 });
        for effect in applied.effects {
            let mobula_namespace::BlockEffect::Removed { block } = effect else { panic!("{effect:?}") };
            assert!(removed.insert(block));
        }
        assert!(before - fixture.namespace.view().counts().inodes <= 1000, "bounded");
        fixture.run(&superuser(), mkdirs(&format!("/others/{steps}"))).unwrap();
        steps += 1;
    }
    assert!(steps >= 100, "{steps} steps");
    assert!(removed.contains(&block.id));
    let counts = fixture.namespace.view().counts();
    assert_eq!((counts.files, counts.blocks, counts.open_files), (0, 0, 0));
    assert_eq!(counts.directories, 1 + 3 + 1 + steps);
}

#[test]
fn a_small_tree_goes_at_once() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, 200, |index| format!("/tree/{}/f{index}", index % 7));
    fixture.run(&superuser(), delete("/tree")).unwrap();
    let counts = fixture.namespace.view().counts();
    assert_eq!((counts.inodes, counts.pending_reap, counts.open_files), (1, 0, 0));
}

/// Wider than what a check looks up at once, and with a directory in its midst that another's are in.
#[test]
fn a_wide_tree_under_a_long_path_is_checked_to_its_last_directory() {
    let mut fixture = Fixture::new();
    let (alice, bob) = (user("alice", &["staff"]), user("bob", &["guests"]));
    let long = format!("/top{}", format!("/{}", "n".repeat(250)).repeat(20));
    fixture.run(&superuser(), mkdirs("/top")).unwrap();
    let chmod = |name: &str, mode| Operation::SetPermission { path: path(name), mode };
    fixture.run(&superuser(), chmod("/top", 0o777)).unwrap();
    for number in 0..300 {
        fixture.run(&alice, mkdirs(&format!("{long}/d{number:03}/a/b"))).unwrap();
        fixture.run(&alice, create(&format!("{long}/f{number:03}"), "c")).unwrap();
    }
    let summary = fixture.namespace.view().content_summary(&alice, &path(&long), &|| true).unwrap();
    assert_eq!((summary.directories, summary.files), (901, 300));
    // Nobody waits for it after a while: it ends, in a directory's midst, too.
    for names in [1_u32, 150, 500] {
        let asked = std::cell::Cell::new(0);
        let goes_on = || {
            asked.set(asked.get() + 1);
            asked.get() < names
        };
        let ended = fixture.namespace.view().content_summary(&alice, &path(&long), &goes_on);
        assert_eq!(ended.unwrap_err().to_string(), "nobody waits for the answer any more");
        assert!(asked.get() <= names + 1, "it went on to {} of {names}", asked.get());
    }
    for directory in ["d007", "d290"] {
        let theirs = format!("{long}/{directory}/a");
        fixture.run(&alice, chmod(&theirs, 0o777)).unwrap();
        fixture.run(&bob, mkdirs(&format!("{theirs}/bobs/full"))).unwrap();
        fixture.run(&bob, chmod(&format!("{theirs}/bobs"), 0o700)).unwrap();
    }
    let denied = |directory| format!("inode=\"{long}/{directory}/a/bobs\":bob:");
    let refused = fixture.run(&alice, delete(&long)).unwrap_err().to_string();
    assert!(refused.contains(&denied("d290")), "the last by name: {refused}");
    let refused =
        fixture.namespace.view().content_summary(&alice, &path(&long), &|| true).unwrap_err().to_string();
    assert!(refused.contains(&denied("d007")), "the first by name: {refused}");
    for directory in ["d007", "d290"] {
        fixture.run(&bob, delete(&format!("{long}/{directory}/a/bobs"))).unwrap();
    }
    assert_eq!(fixture.run(&alice, delete(&long)), Ok(Outcome::Bool(true)));
}

#[test]
fn long_names_and_deep_trees() {
    let mut fixture = Fixture::new();
    let name = "n".repeat(255);
    let long: String = (0..31).map(|_| format!("/{name}")).collect();
    fixture.run(&superuser(), mkdirs(&long)).unwrap();
    let deep = "/d".repeat(1000);
    fixture.run(&superuser(), mkdirs(&deep)).unwrap();
    let view = fixture.namespace.view();
    let status = view.status(&superuser(), &path(&deep)).unwrap().unwrap();
    assert_eq!(view.path_of(status.inode).unwrap().unwrap().as_str(), deep);
    assert_eq!(
        fixture.run(&superuser(), mkdirs(&"/d".repeat(1001))).unwrap_err().to_string(),
        "mkdirs: Pathname too long.  Limit 8000 characters, 1000 levels."
    );
    fixture.run(&superuser(), delete("/d")).unwrap();
    while fixture.namespace.view().counts().pending_reap > 0 {
        fixture.run(&superuser(), Operation::Reap { inodes: 10 }).unwrap();
    }
    assert_eq!(fixture.namespace.view().counts().directories, 32);
}

#[test]
fn a_path_below_an_inode_grows_no_deeper_than_any_other() {
    const TOO_LONG: &str = "Pathname too long.  Limit 8000 characters, 1000 levels.";
    let mut fixture = Fixture::new();
    let deep = "/d".repeat(600);
    fixture.run(&superuser(), mkdirs(&deep)).unwrap();
    fixture.run(&superuser(), mkdirs("/other")).unwrap();
    let status = fixture.namespace.view().status(&superuser(), &path(&deep)).unwrap().unwrap();
    let below = |levels| format!("/.reserved/.inodes/{}{}", status.inode.0, "/d".repeat(levels));
    let mut refused = |operation| fixture.run(&superuser(), operation).unwrap_err().to_string();
    assert_eq!(refused(mkdirs(&below(401))), format!("mkdirs: {TOO_LONG}"));
    assert_eq!(refused(create(&below(401), "c")), format!("create: {TOO_LONG}"));
    let rename = Operation::Rename { source: path("/other"), target: path(&below(401)) };
    assert_eq!(refused(rename), format!("rename: {TOO_LONG}"));
    assert_eq!(fixture.run(&superuser(), mkdirs(&below(400))), Ok(Outcome::Bool(true)));
    assert_eq!(fixture.run(&superuser(), mkdirs(&"/d".repeat(1000))), Ok(Outcome::Bool(true)), "it is there");

    let endless = format!("/.reserved/raw{}", "/a".repeat(19_990));
    assert_eq!(fixture.run(&superuser(), delete(&endless)), Ok(Outcome::Bool(false)));
}

/// As the table of open files has it, after whatever became of them.
#[test]
fn files_of_holders_are_counted_without_reading_them() {
    let mut fixture = Fixture::new();
    for number in 0..2_500 {
        fixture.create(&format!("/d{}/f{number}", number % 5), &format!("holder-{:02}", number % 50));
    }
    fixture.run(&superuser(), delete("/d0")).unwrap();
    let complete = |number: usize| Operation::Complete {
        path: path(&format!("/d{}/f{number}", number % 5)),
        file: None,
        holder: format!("holder-{:02}", number % 50),
        last: None,
    };
    for number in (0..2_500).filter(|number| number % 50 == 7) {
        fixture.run(&superuser(), complete(number)).unwrap();
    }
    let recover = Operation::RecoverLease { path: path("/d1/f1"), holder: "other".into() };
    assert_eq!(fixture.run(&superuser(), recover), Ok(Outcome::Bool(true)));
    while fixture.namespace.view().counts().pending_reap > 0 {
        fixture.run(&superuser(), Operation::Reap { inodes: 1_000 }).unwrap();
    }
    fn counted(fixture: &Fixture) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for file in fixture.namespace.view().open_files(mobula_types::InodeId(0), usize::MAX).unwrap() {
            *counts.entry(file.holder).or_default() += 1;
        }
        counts
    }
    let expected = counted(&fixture);
    assert_eq!((expected.len(), expected["holder-01"], expected.get("holder-07")), (39, 49, None));
    for step in ["applied", "after a power loss", "copied"] {
        match step {
            "after a power loss" => fixture.lose_power(),
            "copied" => fixture.copy(),
            _ => {}
        }
        let view = fixture.namespace.view();
        let (mut all, mut page) = (BTreeMap::new(), view.holders(None, 10));
        while let Some(last) = page.last().cloned() {
            all.extend(page.iter().map(|holder| (holder.to_string(), view.files_held(holder))));
            page = view.holders(Some(&last), 10);
        }
        assert_eq!(all, expected, "{step}");
    }

    // Of two holders, in pages of rows.
    let view = fixture.namespace.view();
    let two = BTreeSet::from(["holder-01".into(), "holder-49".into(), "nobody".into()]);
    let (mut files, mut after) = (Vec::new(), Some(mobula_types::InodeId(0)));
    while let Some(from) = after {
        let (page, next) = view.files_of(&two, from, 100).unwrap();
        assert!(page.len() <= 100);
        files.extend(page);
        after = next;
    }
    assert_eq!(files.len() as u64, expected["holder-01"] + expected["holder-49"]);
    assert!(files.iter().all(|file| two.contains(&*file.holder)));
}
