//! `mobula fs`: the verbs, options, output, messages and exit codes of Hadoop's shell (`FsShell`),
//! over our own client. One verb a call; a file per noun.
//!
//! Invariant: whatever ends a verb early, half-written targets are deleted. It knows nothing of
//! servers but their protocol, so it works against Apache HDFS as well.

mod address;
mod avro;
mod check;
mod content;
mod copy;
pub mod date;
mod directory;
mod failure;
mod filesystem;
mod find;
mod glob;
mod hdfs;
mod help;
mod input;
mod item;
mod later;
mod listing;
mod local;
mod local_sums;
mod merge;
pub mod mode;
mod options;
mod permission;
mod progress;
mod pull;
mod remove;
mod replication;
mod sequence_file;
mod shell;
mod show;
pub mod size;
mod stat;
mod status;
mod text;
mod touch;
mod transfer;
mod trash;
mod usage;
mod walk;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use mobula_client::ClientOptions;
use mobula_net::Env;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Settings, favored_nodes, full_uri, keys, units};
use failure::{Failure, Kind, Outcome};
use shell::{Shell, Unfinished};

/// Exit code where Java's shell says -1: the arguments make no sense.
const EXIT_USAGE: i32 = 255;
/// Exit codes of programs that a signal ended: 128 and its number.
const EXIT_INTERRUPTED: i32 = 130;
const EXIT_TERMINATED: i32 = 143;
/// Verbs that only show something: they end when nobody reads. The others do what they were told to.
const SHOWING: &[&str] = &[
    "cat", "checksum", "count", "df", "du", "find", "getfacl", "getfattr", "head", "help", "ls", "stat",
    "tail", "text", "usage",
];
/// How long half-written targets may take to be deleted after Ctrl-C.
const CLEAR_LIMIT: Duration = Duration::from_secs(5);

/// What every verb is given.
#[derive(Clone, Debug)]
pub struct FsContext {
    /// How clients connect and write.
    pub client_options: ClientOptions,
    /// The file system of paths without a scheme: `hdfs://host:port`.
    pub default_fs: String,
    /// Configuration by Hadoop's keys.
    pub settings: BTreeMap<String, String>,
    /// Network, clock and entropy.
    pub env: Env,
}

impl FsContext {
    /// Turns to another cluster, as `-fs URI` does.
    ///
    /// # Errors
    /// Text that is no `hdfs://host:port`.
    pub fn use_cluster(&mut self, uri: &str) -> anyhow::Result<()> {
        apply_setting(self, "fs.defaultFS", uri).map_err(|failure| anyhow::anyhow!("{failure}"))
    }
}

/// Runs one verb with its arguments, generic options (`-D`, `-fs`, `-conf`) before it, and gives the
/// exit code. The process should end then: a read of standard input may still be under way.
pub async fn run(mut context: FsContext, args: Vec<OsString>) -> i32 {
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(arg) => {
                eprintln!("mobula fs: {} is not UTF-8, as names in HDFS are", arg.display());
                return EXIT_USAGE;
            }
        }
    }
    if let Err(failure) = take_generic_options(&mut context, &mut words) {
        eprintln!("mobula fs: {failure}");
        return EXIT_USAGE;
    }
    if words.is_empty() {
        eprintln!("{}", help::usage_of_all());
        return EXIT_USAGE;
    }
    let typed = words.remove(0);
    let name = match typed.as_str() {
        "--help" | "-h" => "help",
        typed => typed.strip_prefix('-').unwrap_or(""),
    };
    if help::usage_of(name).is_none() {
        eprintln!("{typed}: Unknown command");
        if help::usage_of(&typed).is_some() {
            eprintln!("Did you mean -{typed}?  This command begins with a dash.");
        }
        eprintln!("{}", help::WHERE_TO_LOOK);
        return EXIT_USAGE;
    }
    run_verb(context, name, words).await
}

async fn run_verb(context: FsContext, name: &str, mut args: Vec<String>) -> i32 {
    let mut verb = name;
    if let Some((old, new, option, told)) = help::DEPRECATED.iter().find(|(old, ..)| *old == name) {
        eprintln!("{old}: DEPRECATED: Please use '{told}' instead.");
        args.insert(0, (*option).to_owned());
        verb = new;
    }
    let known =
        help::by_name(verb).expect("its usage is known, and so is the verb that stands for an old one");
    let mut shell = Shell::new(context, name);
    shell.ends_unread = SHOWING.contains(&verb);
    shell.json = take_json(verb, &mut args);
    let unfinished = shell.unfinished.clone();
    let progress = shell.progress.clone();
    let ended = tokio::select! {
        biased;
        code = stopped() => Err(code),
        outcome = dispatch(&mut shell, verb, args) => Ok(outcome),
    };
    progress.end();
    match ended {
        Ok(outcome) => {
            // A failure that ends the verb ends the transfers under way too.
            clear(&unfinished).await;
            finish(&mut shell, known, outcome)
        }
        Err(code) => {
            clear(&unfinished).await;
            code
        }
    }
}

/// The exit code of a verb that came to its end.
fn finish(shell: &mut Shell, verb: &help::Verb, outcome: Outcome<()>) -> i32 {
    let outcome = outcome.and_then(|()| shell.flush());
    match outcome {
        Ok(()) => shell.exit_code(),
        Err(failure) => match failure.kind {
            Kind::OutputClosed => unread(shell, verb.name),
            Kind::Usage => {
                for line in failure.message.lines() {
                    shell.warn(&format!("-{}: {line}", shell.verb));
                }
                shell.warn(&verb.usage_line());
                EXIT_USAGE
            }
            _ => {
                shell.fail(&failure);
                shell.exit_code()
            }
        },
    }
}

/// The exit code of a verb whose output nobody reads any more: Java notices where bytes are copied, and
/// elsewhere prints on into the void.
fn unread(shell: &mut Shell, verb: &str) -> i32 {
    if matches!(verb, "cat" | "text" | "tail") {
        shell.fail(&Failure::other("Unable to write to output stream."));
    }
    shell.exit_code()
}

/// Waits for Ctrl-C or a signal to end, and gives the exit code for it.
async fn stopped() -> i32 {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => EXIT_INTERRUPTED,
        _ = terminate.recv() => EXIT_TERMINATED,
    }
}

/// Deletes half-written targets, unless it takes too long or a second signal comes.
async fn clear(unfinished: &Unfinished) {
    tokio::select! {
        biased;
        _ = stopped() => {}
        _ = tokio::time::timeout(CLEAR_LIMIT, transfer::Desk::clear(unfinished)) => {}
    }
}

async fn dispatch(shell: &mut Shell, verb: &str, args: Vec<String>) -> Outcome<()> {
    match verb {
        "appendToFile" => content::append_to_file(shell, args).await,
        "cat" => show::cat(shell, args).await,
        "checksum" => show::checksum(shell, args).await,
        "chgrp" => permission::chgrp(shell, args).await,
        "chmod" => permission::chmod(shell, args).await,
        "chown" => permission::chown(shell, args).await,
        "concat" => content::concat(shell, args).await,
        "count" => usage::count(shell, args).await,
        "cp" => copy::cp(shell, args).await,
        "createSnapshot" => later::create_snapshot(shell, args).await,
        "deleteSnapshot" => later::delete_snapshot(shell, args).await,
        "df" => usage::df(shell, args).await,
        "du" => usage::du(shell, args).await,
        "expunge" => trash::expunge(shell, args).await,
        "find" => find::find(shell, args).await,
        "get" | "copyToLocal" => copy::get(shell, args).await,
        "getfacl" | "setfacl" => later::acl(shell, args).await,
        "getfattr" | "setfattr" => later::attributes(shell, args).await,
        "getmerge" => merge::getmerge(shell, args).await,
        "head" => show::head(shell, args).await,
        "help" => explain(shell, &args, help::help_of_all, help::help_of),
        "ls" => listing::ls(shell, args).await,
        "mkdir" => directory::mkdir(shell, args).await,
        "moveFromLocal" => copy::move_from_local(shell, args).await,
        "moveToLocal" => Err(Failure::other("Option '-moveToLocal' is not implemented yet.")),
        "mv" => copy::mv(shell, args).await,
        "put" | "copyFromLocal" => copy::put(shell, args).await,
        "renameSnapshot" => later::rename_snapshot(shell, args).await,
        "rm" => remove::rm(shell, args).await,
        "rmdir" => directory::rmdir(shell, args).await,
        "setrep" => replication::setrep(shell, args).await,
        "stat" => stat::stat(shell, args).await,
        "tail" => show::tail(shell, args).await,
        "test" => check::test(shell, args).await,
        "text" => text::text(shell, args).await,
        "touch" => touch::touch(shell, args).await,
        "touchz" => touch::touchz(shell, args).await,
        "truncate" => content::truncate(shell, args).await,
        "usage" => explain(shell, &args, help::usage_of_all, help::usage_of),
        other => Err(Failure::usage(format!("`{other}': Unknown command"))),
    }
}

fn explain(
    shell: &mut Shell,
    verbs: &[String],
    all: impl Fn() -> String,
    one: impl Fn(&str) -> Option<String>,
) -> Outcome<()> {
    if verbs.is_empty() {
        return shell.line(all());
    }
    for name in verbs {
        let text = one(name.strip_prefix('-').unwrap_or(name));
        shell.line(text.ok_or_else(|| Failure::usage(format!("`{name}': Unknown command")))?)?;
    }
    Ok(())
}

/// Takes `--json` out of the arguments of verbs that know it.
fn take_json(verb: &str, args: &mut Vec<String>) -> bool {
    if !matches!(verb, "ls" | "stat" | "du" | "count" | "df") {
        return false;
    }
    let before = args.len();
    args.retain(|arg| arg != "--json");
    args.len() < before
}

/// Takes the generic options before the verb, as Hadoop's `GenericOptionsParser` does: wherever they stand,
/// `-fs` goes before what `-conf` names, and `-D` before both.
fn take_generic_options(context: &mut FsContext, words: &mut Vec<String>) -> Outcome<()> {
    let mut settings = Settings::default();
    let mut cluster = None;
    let mut defined = Vec::new();
    while let Some((option, value)) = next_generic_option(words)? {
        match option.as_str() {
            "D" => defined.extend(definition(&value)?),
            // The first one counts.
            "fs" if cluster.is_none() => cluster = Some(full_uri(&value)),
            "conf" => settings
                .add_hadoop_file(Path::new(&value))
                .map_err(|error| Failure::usage(format!("{error:#}")))?,
            // What jobs need, not the shell.
            _ => {}
        }
    }
    let mut changed = settings.to_map();
    changed.extend(cluster.map(|uri| ("fs.defaultFS".to_owned(), uri)));
    changed.extend(defined);
    context.settings.extend(changed.clone());
    for (key, value) in &changed {
        apply_setting(context, key, value)?;
    }
    Ok(())
}

/// Options of all of Hadoop's tools that a value follows (`GenericOptionsParser.buildGeneralOptions`).
const GENERIC_OPTIONS: &[&str] = &["fs", "jt", "conf", "D", "libjars", "files", "archives", "tokenCacheFile"];

/// Takes the generic option that `words` begin with, if they do: `-fs URI`, `--fs URI`, `-fs=URI`, `-Dkey=value`.
fn next_generic_option(words: &mut Vec<String>) -> Outcome<Option<(String, String)>> {
    let Some(first) = words.first() else { return Ok(None) };
    let Some(typed) = first.strip_prefix("--").or_else(|| first.strip_prefix('-')) else { return Ok(None) };
    let is_known = |name: &str| GENERIC_OPTIONS.contains(&name);
    let within = match typed.split_once('=') {
        Some((name, value)) if is_known(name) => Some((name.to_owned(), value.to_owned())),
        _ if is_known(typed) => None,
        _ => first.strip_prefix("-D").map(|definition| ("D".to_owned(), definition.to_owned())),
    };
    if within.is_none() && !is_known(typed) {
        return Ok(None);
    }
    let first = words.remove(0);
    if within.is_some() {
        return Ok(within);
    }
    if words.is_empty() {
        return Err(Failure::usage(format!(
            "Missing argument for option: {}",
            first.trim_start_matches('-')
        )));
    }
    Ok(Some((first.trim_start_matches('-').to_owned(), words.remove(0))))
}

/// What `-D` says; without a value it says nothing.
fn definition(text: &str) -> Outcome<Option<(String, String)>> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("-D wants key=value, and not '{text}'"))),
        Some((key, value)) => Ok(Some((keys::of_today(key).to_owned(), value.to_owned()))),
        None => Ok(None),
    }
}

/// Where the NameNodes behind a URI are; `None` if it names no cluster.
fn namenodes_of(settings: &BTreeMap<String, String>, uri: &str) -> Option<Vec<String>> {
    let mut all = Settings::default();
    settings.iter().for_each(|(key, value)| all.set(key, value.clone()));
    all.namenodes_of(uri)
}

/// Settings that change how we connect and write.
fn apply_setting(context: &mut FsContext, key: &str, value: &str) -> Outcome<()> {
    let wrong = |what: &str| Failure::usage(format!("{key} is '{value}', but must be {what}"));
    let options = &mut context.client_options;
    match key {
        "fs.defaultFS" => {
            context.default_fs = full_uri(value);
            let addresses = namenodes_of(&context.settings, &context.default_fs);
            context.client_options.namenodes = addresses.unwrap_or_default();
        }
        "dfs.replication" => {
            options.replication = Some(value.trim().parse().map_err(|_| wrong("a number of replicas"))?);
        }
        "dfs.blocksize" => {
            let size = units::parse_size(value).ok_or_else(|| wrong("a size such as 134217728 or 128m"))?;
            options.block_size = Some(size);
        }
        "mobula.client.favored-nodes" => options.favored_nodes = favored_nodes(value),
        "fs.permissions.umask-mode" => {
            options.umask = mode::umask(value).ok_or_else(|| {
                let value = format!("with value {value} as octal or symbolic umask");
                Failure::usage(format!("Unable to parse configuration {key} {value}."))
            })?;
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn context() -> FsContext {
        FsContext {
            client_options: ClientOptions {
                namenodes: vec!["127.0.0.1:1".into()],
                user: "alice".into(),
                replication: None,
                block_size: None,
                umask: 0o022,
                call_limit: Duration::from_secs(1),
                replace_datanode: mobula_client::ReplaceDatanode::default(),
                favored_nodes: Vec::new(),
            },
            default_fs: "hdfs://127.0.0.1:1".into(),
            settings: BTreeMap::new(),
            env: Env::real(),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn generic_options_before_the_verb() {
        let mut context = context();
        let mut args = words("-D dfs.blocksize=1m -Ddfs.replication=2 -fs hdfs://h:9 -D a.b=c=d -ls -D");
        take_generic_options(&mut context, &mut args).unwrap();
        assert_eq!(args, words("-ls -D"));
        assert_eq!(context.client_options.block_size, Some(1 << 20));
        assert_eq!(context.client_options.replication, Some(2));
        assert_eq!(context.client_options.namenodes, ["h:9"]);
        assert_eq!(context.default_fs, "hdfs://h:9");
        assert_eq!(context.settings["a.b"], "c=d");
        // What is no definition is no error either, and jobs' options are not ours.
        let mut args = words("-D novalue -Dnovalue -jt local -files x -fs=h2:7 -fs hdfs://late:1 -ls");
        take_generic_options(&mut context, &mut args).unwrap();
        assert_eq!((args, context.default_fs.as_str()), (words("-ls"), "hdfs://h2:7"));
        assert_eq!(context.client_options.namenodes, ["h2:7"]);
        assert!(!context.settings.contains_key("novalue"));
        assert!(take_generic_options(&mut context, &mut words("-D")).is_err());
        assert!(take_generic_options(&mut context, &mut words("-D dfs.replication=x -ls")).is_err());
    }

    /// `-D` goes before `-fs`, and that before what `-conf` names, wherever they stand.
    #[test]
    fn the_file_system_of_generic_options() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.xml");
        let property = "<property><name>fs.defaultFS</name><value>foo://x</value></property>";
        std::fs::write(&file, format!("<configuration>{property}</configuration>")).unwrap();
        for (line, default_fs, namenodes) in [
            ("-fs hdfs://h:9 -conf FILE -ls", "hdfs://h:9", &["h:9"][..]),
            ("-D fs.default.name=hdfs://d:1 -fs hdfs://h:9 -ls", "hdfs://d:1", &["d:1"]),
            ("-conf FILE -ls", "foo://x", &[]),
            ("-fs local -ls", "file:///", &[]),
            (
                "-D dfs.ha.namenodes.c=a -D dfs.namenode.rpc-address.c.a=n:1 -fs hdfs://c -ls",
                "hdfs://c",
                &["n:1"],
            ),
        ] {
            let mut context = context();
            take_generic_options(&mut context, &mut words(&line.replace("FILE", file.to_str().unwrap())))
                .unwrap();
            assert_eq!(context.default_fs, default_fs, "{line}");
            assert_eq!(context.client_options.namenodes, namenodes, "{line}");
        }
    }

    #[test]
    fn json_only_where_it_is_known() {
        let mut args = words("-R --json /");
        assert!(take_json("ls", &mut args));
        assert_eq!(args, words("-R /"));
        let mut args = words("--json /");
        assert!(!take_json("cat", &mut args));
        assert_eq!(args.len(), 2);
    }

    #[tokio::test]
    async fn arguments_that_make_no_sense_exit_with_255() {
        let run = |line: &str| run(context(), words(line).into_iter().map(OsString::from).collect());
        assert_eq!(run("-ls -Z /").await, EXIT_USAGE);
        assert_eq!(run("-nosuch").await, EXIT_USAGE);
        assert_eq!(run("usage ls").await, EXIT_USAGE);
        assert_eq!(run("-help nosuch").await, EXIT_USAGE);
        assert_eq!(run("-help lsr").await, 0);
        assert_eq!(run("-mkdir").await, EXIT_USAGE);
        assert_eq!(run("-test -e -d /").await, EXIT_USAGE);
        assert_eq!(run("-chmod 99 /").await, EXIT_USAGE);
        assert_eq!(run("-moveToLocal /a b").await, 1);
        assert_eq!(run("-usage ls").await, 0);
    }
}
