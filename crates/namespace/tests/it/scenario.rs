//! Runs `tests/scenarios/*.txt`: commands, a line of dashes, what they answer; a blank line, and on.
//! `BLESS=1 cargo test` writes what was answered into the files, to be read before it is believed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mobula_namespace::{
    AddBlock, Append, Applied, BlockEffect, Caller, Closable, CommitBlockSynchronization, Create, FileBlock,
    FileKind, FileStatus, LastBlock, OpenFile, Operation, Outcome, Overwrite, Parents, Recovery, RetryKey,
    Rules, Truncate, UpdatePipeline,
};
use mobula_types::{Block, BlockId, ClientId, GenStamp, InodeId, Millis, Target};

use crate::fixture::{Fixture, START, path, superuser, target, user};

#[test]
fn scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "scenarios went missing");
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let answered = play(&text);
        if bless {
            std::fs::write(&file, &answered).unwrap();
        } else if text != answered {
            let differs = text.lines().zip(answered.lines()).find(|(old, new)| old != new);
            writeln!(wrong, "{}: {differs:?}", file.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "expected, answered:\n{wrong}");
}

/// The file again, with what is answered now.
fn play(text: &str) -> String {
    let mut player = Player { fixture: Fixture::new(), caller: superuser(), names: BTreeMap::new() };
    let mut out = String::new();
    for section in text.trim_end().split("\n\n") {
        if !out.is_empty() {
            out.push('\n');
        }
        let commands = section.lines().take_while(|line| !line.starts_with("----"));
        let mut answers = String::new();
        for line in commands {
            out.push_str(line);
            out.push('\n');
            if !line.starts_with('#') && !line.is_empty() {
                player.line(line, &mut answers);
            }
        }
        if !answers.is_empty() {
            out.push_str("----\n");
            out.push_str(&answers);
        }
    }
    out
}

struct Player {
    fixture: Fixture,
    caller: Caller,
    /// Blocks and files by the names that the scenario gives them.
    names: BTreeMap<String, Block>,
}

/// Words and `key=value`s of a line.
struct Line<'a> {
    words: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Line<'a> {
        let (options, words): (Vec<_>, Vec<_>) = line.split_whitespace().partition(|word| word.contains('='));
        Line { words, options: options.iter().map(|option| option.split_once('=').unwrap()).collect() }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|value| value.parse().unwrap())
    }

    fn octal(&self, key: &str, default: u16) -> u16 {
        self.options.get(key).map_or(default, |value| u16::from_str_radix(value, 8).unwrap())
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn holder(&self) -> String {
        (*self.options.get("holder").unwrap_or(&"c1")).into()
    }

    fn file(&self) -> Option<InodeId> {
        self.number("id").map(InodeId)
    }

    fn parents(&self) -> Parents {
        if self.has("noparents") { Parents::Require } else { Parents::Create }
    }
}

impl Player {
    fn line(&mut self, text: &str, out: &mut String) {
        let line = Line::new(text);
        match line.words[0] {
            "as" => self.caller = who(line.words[1]),
            "advance" => self.fixture.now += line.words[1].parse::<u64>().unwrap(),
            "stat" | "ls" | "blocks" | "summary" | "usage" | "closed" | "blocksize" | "access" | "counts"
            | "leases" | "recoveries" => {
                self.read(&line, out);
            }
            _ => {
                let operation = self.operation(&line);
                let retry =
                    line.number("call").map(|call| RetryKey { client: ClientId([9; 16]), call: call as i32 });
                let applied = self.fixture.apply(&self.caller, retry, operation);
                self.name(&line, &applied);
                answer(&applied, out);
            }
        }
    }

    /// `name=A`: the block that the answer gives, or whose recovery begins.
    fn name(&mut self, line: &Line<'_>, applied: &Applied) {
        let Some(name) = line.options.get("name") else { return };
        let recovered = applied.effects.iter().find_map(|effect| match effect {
            BlockEffect::Recover { block, recovery, .. } => Some(Block { stamp: *recovery, ..*block }),
            _ => None,
        });
        let block = match &applied.outcome {
            Ok(Outcome::Allocated(allocated) | Outcome::Begun(_, allocated)) => Some(allocated.block),
            Ok(Outcome::Restamped(block)) => Some(*block),
            Ok(Outcome::Appended(appended)) => appended.block.as_ref().map(|block| block.block),
            _ => recovered,
        };
        if let Some(block) = block {
            self.names.insert((*name).into(), block);
        }
    }

    /// What the leader would look up: targets as many as `targets=`, the block that is there or `last=`.
    fn last(&self, line: &Line<'_>, found: Option<FileBlock>) -> Option<LastBlock> {
        let block = match line.options.get("last") {
            Some(text) => self.block(text),
            None => found?.block,
        };
        Some(LastBlock { block, targets: targets(line) })
    }

    fn renewed(&self, line: &Line<'_>) -> Option<Millis> {
        line.number("renewed_ago").map(|ago| Millis(self.fixture.now - ago))
    }

    /// `A` is the block named so, `A:5` with length 5, `A+1` with a newer stamp.
    fn block(&self, text: &str) -> Block {
        let (rest, length) = text.split_once(':').unwrap_or((text, "0"));
        let (name, newer) = rest.split_once('+').unwrap_or((rest, "0"));
        let unknown = Block { id: BlockId(5), stamp: GenStamp(1), length: 0 };
        let block = self.names.get(name).copied().unwrap_or(unknown);
        let stamp = GenStamp(block.stamp.0 + newer.parse::<u64>().unwrap());
        Block { stamp, length: length.parse().unwrap(), ..block }
    }

    fn operation(&self, line: &Line<'_>) -> Operation {
        let at = |index: usize| path(line.words[index]);
        let (file, holder) = (line.file(), line.holder());
        let block = |key: &str| line.options.get(key).map(|text| self.block(text));
        match line.words[0] {
            "mkdirs" => {
                Operation::Mkdirs { path: at(1), mode: line.octal("mode", 0o755), parents: line.parents() }
            }
            "create" => {
                let create = Create {
                    path: at(1),
                    mode: line.octal("mode", 0o644),
                    holder,
                    flags: line.number("flags").unwrap_or(1) as u32,
                    parents: line.parents(),
                    replication: line.number("replication").unwrap_or(3) as u16,
                    block_size: line.number("blocksize").unwrap_or(128 << 20),
                    holder_renewed: self.renewed(line),
                };
                match line.has("with") {
                    true => Operation::CreateWith { create, targets: targets(line) },
                    false => Operation::Create(create),
                }
            }
            "append" => Operation::Append(Append {
                path: at(1),
                holder,
                flags: line.number("flags").unwrap_or(4) as u32,
                holder_renewed: self.renewed(line),
                last: self.last(line, self.fixture.namespace.view().last_block_at(&at(1)).unwrap()),
            }),
            "truncate" => {
                let length = line.words[2].parse().unwrap();
                let found = self.fixture.namespace.view().block_cut_at(&at(1), length).unwrap();
                Operation::Truncate(Truncate {
                    path: at(1),
                    holder,
                    length,
                    holder_renewed: self.renewed(line),
                    last: self.last(line, found),
                })
            }
            "concat" => Operation::Concat {
                target: at(1),
                sources: line.words[2..].iter().map(|word| path(word)).collect(),
            },
            "restamp" => Operation::UpdateBlockForPipeline { block: block("block").unwrap(), holder },
            "pipeline" => Operation::UpdatePipeline(UpdatePipeline {
                holder,
                old: block("old").unwrap(),
                new: block("new").unwrap(),
                targets: targets(line),
            }),
            "sync" => Operation::CommitBlockSynchronization(CommitBlockSynchronization {
                block: block("block").unwrap(),
                stamp: block("as").unwrap().stamp,
                length: line.number("length").unwrap_or(0),
                close: !line.has("open"),
                delete: line.has("delete"),
                targets: targets(line),
            }),
            "retry" => Operation::RetryRecovery { file: file.unwrap(), recovery: block("as").unwrap().stamp },
            "add" => Operation::AddBlock(AddBlock {
                path: at(1),
                file,
                holder,
                previous: block("previous"),
                targets: targets(line),
            }),
            "abandon" => {
                Operation::AbandonBlock { path: at(1), file, holder, block: block("block").unwrap() }
            }
            "complete" if line.words.len() > 2 => Operation::CompleteAs {
                path: at(1),
                file,
                holder,
                last: block("last"),
                target: at(2),
                overwrite: if line.has("overwrite") { Overwrite::Yes } else { Overwrite::No },
            },
            "complete" => Operation::Complete { path: at(1), file, holder, last: block("last") },
            "fsync" => Operation::Fsync { path: at(1), file, holder, last_length: line.number("length") },
            "recover" => Operation::RecoverLease { path: at(1), holder },
            "expire" => Operation::ExpireLease {
                holder,
                file: file.unwrap(),
                closable: match line.words[1] {
                    "complete" => Closable::Complete { last: block("last") },
                    "drop" => Closable::DropLast,
                    _ => Closable::NotYet,
                },
            },
            "rename" => Operation::Rename { source: at(1), target: at(2) },
            "rename2" => Operation::Rename2 {
                source: at(1),
                target: at(2),
                overwrite: if line.has("overwrite") { Overwrite::Yes } else { Overwrite::No },
                to_trash: line.has("trash"),
            },
            "delete" => Operation::Delete { path: at(1), recursive: line.has("recursive") },
            "setrep" => {
                Operation::SetReplication { path: at(1), replication: line.words[2].parse().unwrap() }
            }
            "chmod" => {
                Operation::SetPermission { path: at(1), mode: u16::from_str_radix(line.words[2], 8).unwrap() }
            }
            "acl" => {
                let access = line.words.get(2).map(|bits| u16::from_str_radix(bits, 8).unwrap());
                Operation::SetAcl { path: at(1), access }
            }
            "chown" => Operation::SetOwner {
                path: at(1),
                user: line.options.get("user").map(|name| (*name).into()),
                group: line.options.get("group").map(|name| (*name).into()),
            },
            "times" => Operation::SetTimes {
                path: at(1),
                modified: line.number("modified").map(Millis),
                accessed: line.number("accessed").map(Millis),
            },
            "configure" => Operation::Configure(Rules {
                permissions: !line.has("nopermissions"),
                access_time_precision: line
                    .number("precision")
                    .map_or(Rules::default().access_time_precision, Millis),
                ..Rules::default()
            }),
            "touch" => Operation::Touch {
                accesses: vec![(file.unwrap(), Millis(START + line.number("at").unwrap()))],
            },
            "reap" => Operation::Reap { inodes: line.words[1].parse().unwrap() },
            other => panic!("unknown command {other}"),
        }
    }

    fn read(&self, line: &Line<'_>, out: &mut String) {
        let view = self.fixture.namespace.view();
        let caller = &self.caller;
        let at = || path(line.words[1]);
        let text = match line.words[0] {
            "stat" => view.status(caller, &at()).map(|status| status.map_or("absent".into(), |s| show(&s))),
            "ls" => {
                let after = line.options.get("after").unwrap_or(&"");
                let limit = line.number("limit").unwrap_or(1000) as usize;
                view.listing(caller, &at(), after.as_bytes(), limit).map(|listing| match listing {
                    None => "absent".into(),
                    Some(listing) => {
                        let mut text: Vec<String> = listing.entries.iter().map(show).collect();
                        text.push(format!("{} more", listing.remaining));
                        text.join("\n")
                    }
                })
            }
            "blocks" => {
                let (offset, length) =
                    (line.number("offset").unwrap_or(0), line.number("length").unwrap_or(u64::MAX));
                let now = Millis(self.fixture.now);
                view.file_blocks(caller, &at(), offset, length, now).map(|found| {
                    let mut text = show(&found.status);
                    for block in &found.blocks {
                        write!(
                            text,
                            "\n  {} at {} length {} {:?}",
                            block.block, block.offset, block.block.length, block.state
                        )
                        .unwrap();
                    }
                    if let Some(last) = &found.last {
                        write!(text, "\n  last {} targets {}", last.block, last.targets.len()).unwrap();
                    }
                    if found.touch.is_some() {
                        text.push_str("\n  touch");
                    }
                    text
                })
            }
            "summary" | "usage" => match line.words[0] {
                "usage" => view.quota_usage(caller, &at(), &|| true),
                _ => view.content_summary(caller, &at(), &|| true),
            }
            .map(|summary| {
                format!(
                    "{} directories {} files {} bytes {} space",
                    summary.directories, summary.files, summary.length, summary.space
                )
            }),
            "closed" => view.is_file_closed(caller, &at()).map(|closed| closed.to_string()),
            "blocksize" => view.preferred_block_size(caller, &at()).map(|size| size.to_string()),
            "access" => {
                let bits = mobula_namespace::Access(line.words[2].parse().unwrap());
                view.check_access(caller, &at(), bits).map(|()| "ok".into())
            }
            "counts" => {
                let counts = view.counts();
                Ok(format!(
                    "{} files {} directories {} blocks {} open {} to reap",
                    counts.files, counts.directories, counts.blocks, counts.open_files, counts.pending_reap
                ))
            }
            "recoveries" => Ok(view
                .recoveries(InodeId(0), 100)
                .unwrap()
                .iter()
                .map(|running| {
                    let Recovery { id, began, truncate } = running.recovery;
                    let aim = truncate.map(|length| format!(" to {length} bytes")).unwrap_or_default();
                    let (file, block, nodes) = (running.file, running.block, running.targets.len());
                    let began = began.0 - START;
                    format!(
                        "{file} {block} {} bytes as {id}{aim} at {nodes} nodes since {began}",
                        block.length
                    )
                })
                .collect::<Vec<_>>()
                .join("\n")),
            _ => Ok(view
                .open_files(InodeId(0), 100)
                .unwrap()
                .iter()
                .map(|open| {
                    let OpenFile { inode, path, holder, machine, since, recovery } = open;
                    let since = since.0 - START;
                    let state = if recovery.is_some() { ", in recovery" } else { "" };
                    format!("{inode} {path} {holder} on {machine} since {since}{state}")
                })
                .collect::<Vec<_>>()
                .join("\n")),
        };
        let text = text.unwrap_or_else(|error| format!("{:?}: {error}", error.kind()));
        writeln!(out, "{text}").unwrap();
    }
}

fn targets(line: &Line<'_>) -> Vec<Target> {
    (1..=line.number("targets").unwrap_or(2)).map(|number| target(number as u32)).collect()
}

fn who(text: &str) -> Caller {
    if text == "hdfs" {
        return superuser();
    }
    let (name, groups) = text.split_once(':').unwrap_or((text, text));
    user(name, &groups.split(',').collect::<Vec<_>>())
}

fn answer(applied: &Applied, out: &mut String) {
    match &applied.outcome {
        Ok(Outcome::Done) => out.push_str("ok"),
        Ok(Outcome::Bool(yes)) => write!(out, "{yes}").unwrap(),
        Ok(Outcome::Status(status)) => out.push_str(&show(status)),
        Ok(Outcome::Begun(status, allocated)) => {
            write!(out, "{}; {} on {} targets", show(status), allocated.block, allocated.targets.len())
                .unwrap();
        }
        Ok(Outcome::Allocated(allocated)) => {
            write!(out, "{} at {} on {} targets", allocated.block, allocated.offset, allocated.targets.len())
                .unwrap();
        }
        Ok(Outcome::Appended(appended)) => {
            out.push_str(&show(&appended.status));
            if let Some(last) = &appended.block {
                write!(out, "; goes on with {} at {} targets", last.block, last.targets.len()).unwrap();
            }
        }
        Ok(Outcome::Restamped(block)) => write!(out, "{block}").unwrap(),
        Err(error) => write!(out, "{:?}: {error}", error.kind()).unwrap(),
    }
    for effect in &applied.effects {
        match effect {
            BlockEffect::Allocated { block, replication, .. } => {
                write!(out, "; allocated {block} x{replication}")
            }
            BlockEffect::Committed { block, replication } => {
                write!(out, "; committed {block} {} bytes x{replication}", block.length)
            }
            BlockEffect::Reopened { block, replication, .. } => {
                write!(out, "; reopened {block} {} bytes x{replication}", block.length)
            }
            BlockEffect::Pipeline { block, targets } => write!(out, "; {block} at {} nodes", targets.len()),
            BlockEffect::Recover { block, recovery, truncate, .. } => {
                let to = truncate.map(|length| format!(" to {length} bytes")).unwrap_or_default();
                write!(out, "; recover {block} as {recovery}{to}")
            }
            BlockEffect::Recovered { block, targets } => {
                write!(out, "; recovered {block} at {} nodes", targets.len())
            }
            BlockEffect::Removed { block } => write!(out, "; removed {block}"),
            BlockEffect::Replication { block, replication } => write!(out, "; {block} x{replication}"),
        }
        .unwrap();
    }
    out.push('\n');
}

fn show(status: &FileStatus) -> String {
    let name = String::from_utf8_lossy(&status.name);
    let kind = match &status.kind {
        FileKind::Directory { children } => format!("dir of {children}"),
        FileKind::File { length, replication, open, .. } => {
            format!("{} {length} bytes x{replication}", if *open { "open" } else { "file" })
        }
    };
    let since = |time: Millis| time.0 as i64 - START as i64;
    let accessed = if status.accessed.0 == 0 { "-".into() } else { since(status.accessed).to_string() };
    format!(
        "'{name}' {} {kind} {:o} {}:{} m{} a{accessed}",
        status.inode,
        status.mode,
        status.owner,
        status.group,
        since(status.modified),
    )
}
