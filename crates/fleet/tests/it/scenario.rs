//! Scenarios as text (STYLE 29): commands, a line of dashes, what they print. `UPDATE=1` writes what
//! they print now; look at the difference before you keep it.
//!
//! ```text
//! nodes 4 [volumes=2]            write b1 3 [dn1,dn2,dn3]       open b1 3 dn1,dn2
//! commit b1                      kill|start|cut|join dn1        disconnect|stopping dn1
//! rot b1 dn1 (silently)          bad b1 dn1 (rots, and a reader tells)
//! setrep b1 2                    remove b1                      advance 15s
//! mute|deaf|talk dn1             full dn1 (its disk)            fail|mend dn1 v1
//! empty dn1 v1 (loses all)       report dn1                     again dn1 (its last news twice)
//! namenode (restarts)            delay dn1 2s (its reports)     beat dn1 3s
//! stale b1 dn1 (an old stamp)    rwr b1 dn1                     future dn1
//! flush b1 3K (acknowledged)      append b1 [no-pipeline|same-stamp]  close b1 (complete waits)
//! recover b1 (its writer is gone) truncate b1 1K                breaks dn1 (in its next recovery)
//! hold|release (orders: safe mode)
//! part|rejoin dn1 dn2 (from each other only)                    recoveries
//! show b1 | nodes? | stats | healed | tell | why
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use mobula_fleet::{FleetConfig, NodeFilter, Notice, PlacementRequest};
use mobula_types::{Block, BlockId, GenStamp, Millis, ReplicaState};

use crate::world::{World, uuid};
use crate::writing::Append;

const LENGTH: u64 = 1 << 20;

#[test]
fn all_scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 40, "the scenarios are gone");
    let mut failed = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (commands, expected) = text.split_once("----\n").unwrap_or((&text, ""));
        let printed = Runner::new().run(commands);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, format!("{commands}----\n{printed}")).unwrap();
        } else if printed != expected {
            failed.push(format!("{}:\n--- expected\n{expected}--- printed\n{printed}", file.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

struct Runner {
    world: World,
    blocks: BTreeMap<String, Block>,
    told: u64,
    out: String,
}

impl Runner {
    fn new() -> Runner {
        Runner {
            world: World::new(1, FleetConfig::default()),
            blocks: BTreeMap::new(),
            told: 0,
            out: String::new(),
        }
    }

    fn run(mut self, commands: &str) -> String {
        for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            self.command(words[0], &words[1..]);
        }
        self.out
    }

    fn command(&mut self, verb: &str, args: &[&str]) {
        match verb {
            "nodes" => self.nodes(args),
            "advance" => self.world.advance(millis(args[0])),
            "write" | "open" | "commit" | "setrep" | "remove" => self.file_command(verb, args),
            "flush" | "append" | "close" | "recover" | "truncate" => self.writer_command(verb, args),
            "part" | "rejoin" => {
                let (one, other) = (node(args[0]), node(args[1]));
                let pair = (one.min(other), one.max(other));
                let parted = &mut self.world.writing.parted;
                if verb == "part" {
                    parted.insert(pair)
                } else {
                    parted.remove(&pair)
                };
            }
            "recoveries" => {
                let (world, pending) = (&self.world, self.world.fleet.stats().pending_recoveries);
                let (done, refused) = (world.writing.recovered, world.writing.refused);
                let ordered = world.recovery_orders();
                writeln!(
                    self.out,
                    "recoveries {pending} pending; {ordered} ordered {done} done {refused} refused"
                )
                .unwrap();
            }
            "rot" | "bad" | "stale" | "rwr" | "show" => self.replica_command(verb, args),
            "namenode" => {
                self.world.restart_namenode();
                self.told = 0;
                for node in &mut self.world.nodes {
                    node.registered = false;
                }
            }
            "hold" => self.world.fleet.hold_orders(),
            "release" => self.world.fleet.release_orders(),
            "stats" => self.stats(),
            "healed" => {
                let health = self.world.fleet.health();
                if health.healed {
                    self.world.is_healed().unwrap();
                }
                writeln!(self.out, "healed {}", health.healed).unwrap();
            }
            "why" => {
                for under in self.world.fleet.under_replicated(10, &self.world.table) {
                    let name = self.name(under.block.id);
                    writeln!(self.out, "{name} {} of {}: {:?}", under.live, under.wanted, under.why).unwrap();
                }
            }
            "tell" => self.tell(),
            "place" => {
                let request = PlacementRequest {
                    replicas: args[0].parse().unwrap(),
                    block_size: LENGTH,
                    ..Default::default()
                };
                let placement = self.world.fleet.place(Millis(self.world.now), &request);
                let mut names: Vec<_> = placement.targets.iter().map(|t| t.datanode.to_string()).collect();
                names.sort();
                writeln!(self.out, "placed on {}", names.join(" ")).unwrap();
            }
            _ => self.node_command(verb, args),
        }
    }

    fn nodes(&mut self, args: &[&str]) {
        if args.is_empty() {
            for report in self.world.fleet.datanodes(Millis(self.world.now), NodeFilter::All) {
                writeln!(self.out, "{} {:?} {} replicas", report.info.id.uuid, report.state, report.blocks)
                    .unwrap();
            }
            return;
        }
        let volumes = args.get(1).map_or(1, |text| text.trim_start_matches("volumes=").parse().unwrap());
        for _ in 0..args[0].parse().unwrap() {
            self.world.add_node(volumes);
        }
        self.world.advance(5_000);
        self.told = u64::MAX;
        self.skip_notices();
    }

    fn skip_notices(&mut self) {
        let all = self.world.fleet.notices_since(0);
        self.told = all.last().map_or(0, |(seq, ..)| seq + 1);
    }

    fn file_command(&mut self, verb: &str, args: &[&str]) {
        let name = args[0].to_string();
        let count = || args[1].parse::<u16>().unwrap();
        let on = || args.get(2).map(|names| names.split(',').map(node).collect::<Vec<_>>());
        match verb {
            "write" => {
                let block = self.world.write(count(), LENGTH, on()).expect("there is a node");
                self.blocks.insert(name, block);
                self.world.advance(200);
            }
            "open" => {
                let on = on().unwrap();
                let block = self.world.open_block(count(), on);
                self.blocks.insert(name, block);
                self.world.advance(200);
            }
            "commit" => {
                let block = Block { length: LENGTH, ..self.blocks[&name] };
                let row = self.world.table.rows[&block.id];
                for index in 0..self.world.nodes.len() {
                    if self.world.nodes[index].up && self.world.find(index, block.id).is_some() {
                        self.world.store(index, 0, block, ReplicaState::Finalized, true);
                    }
                }
                self.world.commit(block, row.replication);
                self.blocks.insert(name, block);
            }
            "setrep" => self.world.set_replication(self.blocks[&name].id, count()),
            _ => self.world.remove(self.blocks[&name].id),
        }
    }

    fn writer_command(&mut self, verb: &str, args: &[&str]) {
        let id = self.blocks[args[0]].id;
        let length = || args[1].trim_end_matches('K').parse::<u64>().unwrap() << 10;
        let done = match verb {
            "flush" => self.world.flush(id, length()),
            "append" => {
                let how = match args.get(1) {
                    None => Append::NewStamp,
                    Some(&"same-stamp") => Append::SameStamp,
                    Some(_) => Append::NeverBegun,
                };
                self.world.append(id, how)
            }
            "truncate" => self.world.truncate(id, length()),
            "close" => self.world.close_block(id),
            _ => {
                self.world.recover(id);
                true
            }
        };
        if !done {
            writeln!(self.out, "no {verb}").unwrap();
        }
        self.world.advance(200);
    }

    fn replica_command(&mut self, verb: &str, args: &[&str]) {
        let block = self.blocks[args[0]];
        if verb == "show" {
            return self.show(args[0], block);
        }
        let index = node(args[1]);
        match verb {
            "rot" | "bad" => {
                self.world.rot(index, block.id);
                if verb == "bad" {
                    self.world.call_bad(index, block);
                }
            }
            "stale" => {
                let old = Block { stamp: GenStamp(block.stamp.0 - 1), ..block };
                self.world.store(index, 0, old, ReplicaState::Finalized, false);
            }
            _ => self.world.store(index, 0, block, ReplicaState::Rwr, false),
        }
    }

    fn show(&mut self, name: &str, block: Block) {
        let row = self.world.table.rows.get(&block.id).copied();
        let block = row.map_or(block, |row| Block { length: block.length, ..row.block });
        let block = row.filter(|row| row.committed).map_or(block, |row| row.block);
        let locations = match row {
            Some(row) if !row.committed => {
                let expected = self.world.expected(block.id);
                self.world.fleet.open_locations(row.block, &expected, "")
            }
            _ => self.world.fleet.locations(Millis(self.world.now), block.id, ""),
        };
        let mut places: Vec<String> = locations
            .replicas
            .iter()
            .map(|l| {
                let marks = if l.corrupt {
                    "!"
                } else if l.stale {
                    "?"
                } else {
                    ""
                };
                format!("{}{marks}", l.node.id.uuid)
            })
            .collect();
        places.sort();
        let disks: Vec<String> = (0..self.world.nodes.len())
            .filter_map(|index| {
                let replica = self.world.find(index, block.id)?;
                let bad =
                    replica.rotten || replica.block != block || replica.state != ReplicaState::Finalized;
                Some(format!("dn{}{}", index + 1, if bad { "!" } else { "" }))
            })
            .collect();
        let good = self.world.fleet.finalized(block);
        writeln!(self.out, "{name} at {} ({good} good); on disks {}", places.join(" "), disks.join(" "))
            .unwrap();
    }

    fn stats(&mut self) {
        let stats = self.world.fleet.stats();
        let world = &self.world;
        writeln!(
            self.out,
            "under {} missing {} corrupt {} future {} deleting {}; copied {} deleted {}",
            stats.under_replicated,
            stats.missing,
            stats.corrupt,
            stats.in_future,
            stats.pending_deletion,
            world.copies,
            world.deletes
        )
        .unwrap();
    }

    fn node_command(&mut self, verb: &str, args: &[&str]) {
        let index = node(args[0]);
        let now = Millis(self.world.now);
        let world = &mut self.world;
        match verb {
            "kill" => world.kill(index),
            "start" => world.start(index),
            "cut" => world.nodes[index].cut = true,
            "join" => world.nodes[index].cut = false,
            "disconnect" => world.fleet.on_disconnected(now, &uuid(index)),
            "stopping" => world.fleet.on_stopping(now, &uuid(index)),
            "breaks" => world.nodes[index].breaks = true,
            "mute" => world.nodes[index].mute = true,
            "deaf" => world.nodes[index].deaf = true,
            "talk" => (world.nodes[index].mute, world.nodes[index].deaf) = (false, false),
            "full" => world.nodes[index].remaining = 0,
            "fail" | "mend" | "empty" => {
                let volume = &mut world.nodes[index].volumes[args[1][1..].parse::<usize>().unwrap() - 1];
                match verb {
                    "fail" => volume.failed = true,
                    "mend" => volume.failed = false,
                    _ => volume.replicas.clear(),
                }
            }
            "report" => world.nodes[index].reported = false,
            "delay" => world.nodes[index].report_delay = millis(args[1]),
            "beat" => world.nodes[index].beat_ms = millis(args[1]),
            "again" => {
                let volumes = &world.nodes[index].volumes;
                let all: Vec<_> = volumes[0].replicas.values().map(|r| r.block).collect();
                for block in all {
                    world.store(index, 0, block, ReplicaState::Finalized, true);
                }
            }
            "future" => {
                let block = Block { id: BlockId(world.table.next + 5), stamp: GenStamp(9_999), length: 1 };
                world.store(index, 0, block, ReplicaState::Finalized, true);
                self.blocks.insert("future".into(), block);
            }
            "stray" => {
                let id = BlockId(world.table.next);
                world.table.next += 1;
                let block = Block { id, stamp: GenStamp(9_999), length: 1 };
                world.store(index, 0, block, ReplicaState::Finalized, false);
                self.blocks.insert("stray".into(), block);
            }
            "clone" => {
                let mut id = world.fleet.node(&uuid(index)).unwrap().id.clone();
                id.ip = "10.9.9.9".into();
                let answer = world
                    .fleet
                    .on_register(now, mobula_fleet::Registration { id, software_version: "3.5.0".into() });
                match answer {
                    Ok(()) => writeln!(self.out, "registered").unwrap(),
                    Err(error) => writeln!(self.out, "{error}").unwrap(),
                }
            }
            _ => panic!("no command {verb}"),
        }
    }

    fn name(&self, id: BlockId) -> String {
        let named = self.blocks.iter().find(|(_, block)| block.id == id);
        named.map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }

    fn tell(&mut self) {
        let notices = self.world.fleet.notices_since(self.told);
        for (seq, at, notice) in notices {
            self.told = seq + 1;
            let at = at.0 as f64 / 1_000.0;
            let text = match notice {
                Notice::NodeNew { node } => format!("{node} is new"),
                Notice::NodeSuspect { node, .. } => format!("{node} suspect"),
                Notice::NodeDead { node, replicas, .. } => format!("{node} dead with {replicas}"),
                Notice::NodeBack { node, was_dead: true } => format!("{node} back from the dead"),
                Notice::NodeBack { node, .. } => format!("{node} back"),
                Notice::StorageFailed { node, storage, replicas } => {
                    format!("{node} lost {storage} with {replicas}")
                }
                Notice::StorageReported { storage, replicas, .. } => format!("{storage} reported {replicas}"),
                Notice::CopyOrdered { block, live, wanted, .. } => {
                    format!("copy {} ({live} of {wanted})", self.name(block))
                }
                Notice::CopyVerified { block, .. } => format!("verified {}", self.name(block)),
                Notice::CopyGivenUp { block, .. } => format!("gave up {}", self.name(block)),
                Notice::ReplicaCorrupt { block, node } => format!("corrupt {} on {node}", self.name(block)),
                Notice::CorruptRemoved { block, node } => {
                    format!("removed corrupt {} from {node}", self.name(block))
                }
                Notice::SurplusRemoved { block, node } => {
                    format!("removed surplus {} from {node}", self.name(block))
                }
                Notice::RecoveryOrdered { block, primary, .. } => {
                    format!("recover {} by {primary}", self.name(block))
                }
                Notice::RecoveryGivenUp { block, .. } => format!("recovery of {} in vain", self.name(block)),
                Notice::BlockMissing { block } => format!("missing {}", self.name(block)),
                other => format!("{other:?}"),
            };
            writeln!(self.out, "{at:.1} {text}").unwrap();
        }
    }
}

fn node(name: &str) -> usize {
    name[2..].parse::<usize>().unwrap() - 1
}

fn millis(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap());
    let number: f64 = number.parse().unwrap();
    let scale = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        _ => panic!("no unit {unit}"),
    };
    (number * scale) as u64
}
