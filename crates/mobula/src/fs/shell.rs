//! What all verbs share: the configuration, the file systems in use, what is printed and counted.

use std::collections::BTreeMap;
use std::io::{BufWriter, IsTerminal, Stdout, Write};
use std::sync::Arc;

use mobula_client::{Client, ClientOptions};
use mobula_wire::checksum::{BYTES_PER_CHUNK_DEFAULT, Checksum, ChecksumKind};
use parking_lot::Mutex;

use super::FsContext;
use super::address::{self, Address};
use super::failure::{Failure, Kind, Outcome};
use super::filesystem::FileSystem;
use super::glob;
use super::hdfs::Hdfs;
use super::item::Item;
use super::local::Local;
use super::progress::Progress;
use super::status::Status;

/// Where users' directories are (`dfs.user.home.dir.prefix`).
const HOMES_DEFAULT: &str = "/user";
/// Most bytes that one checksum may cover: a packet has at least one chunk.
const CHUNK_BYTES_MAX: u32 = 1 << 20;
/// Bytes of output kept until there is more, an error, or the end.
const OUTPUT_BUFFER: usize = 64 << 10;

/// Targets that are being written: whoever ends the shell early deletes them.
pub type Unfinished = Arc<Mutex<BTreeMap<String, (FileSystem, String)>>>;

/// The shell while one verb runs.
pub struct Shell {
    /// Configuration and connections to make.
    pub context: FsContext,
    /// The verb, without a dash.
    pub verb: String,
    /// Whether `--json` was given.
    pub json: bool,
    /// Whether the verb ends when nobody reads what it prints.
    pub ends_unread: bool,
    /// Exit code without errors: `test` says its answer so.
    pub code: i32,
    /// Bars of transfers.
    pub progress: Progress,
    /// What Ctrl-C has to delete.
    pub unfinished: Unfinished,
    errors: u32,
    out: BufWriter<Stdout>,
    default: Option<FileSystem>,
    others: BTreeMap<String, FileSystem>,
}

impl Shell {
    /// A shell for one verb.
    pub fn new(context: FsContext, verb: &str) -> Shell {
        Shell {
            context,
            verb: verb.to_owned(),
            json: false,
            ends_unread: true,
            code: 0,
            progress: Progress::new(),
            unfinished: Arc::default(),
            errors: 0,
            out: BufWriter::with_capacity(OUTPUT_BUFFER, std::io::stdout()),
            default: None,
            others: BTreeMap::new(),
        }
    }

    /// The exit code after all is done.
    pub fn exit_code(&self) -> i32 {
        if self.errors > 0 { 1 } else { self.code }
    }

    // --- Printing ---

    /// Prints bytes.
    ///
    /// # Errors
    /// Nobody reads any more, and the verb ends then.
    pub fn print_bytes(&mut self, bytes: &[u8]) -> Outcome<()> {
        let printed = self.out.write_all(bytes);
        self.unless_unread(printed)
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Nobody reads any more, and the verb ends then.
    pub fn line(&mut self, text: impl AsRef<str>) -> Outcome<()> {
        self.print_bytes(text.as_ref().as_bytes())?;
        self.print_bytes(b"\n")
    }

    /// Shows what was printed so far.
    ///
    /// # Errors
    /// Nobody reads any more, and the verb ends then.
    pub fn flush(&mut self) -> Outcome<()> {
        let flushed = self.out.flush();
        self.unless_unread(flushed)
    }

    fn unless_unread(&self, printed: std::io::Result<()>) -> Outcome<()> {
        match printed {
            Err(error) if self.ends_unread => Err(output_closed(&error)),
            _ => Ok(()),
        }
    }

    /// Prints a line to standard error, after what was printed before it, and above a bar.
    pub fn warn(&mut self, line: &str) {
        // Nobody reads: the next print says so.
        let _ = self.out.flush();
        self.progress.above(|| eprintln!("{line}"));
    }

    /// Whether a person sees what goes to standard error.
    pub fn is_watched(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    // --- Errors ---

    /// Tells of a failure, under the verb's name, and counts it.
    pub fn fail(&mut self, failure: &Failure) {
        self.errors += 1;
        let first = failure.message.lines().next().unwrap_or("");
        let line = format!("{}: {first}", self.verb);
        self.warn(&line);
    }

    /// Goes on after a failure that concerns one path only.
    ///
    /// # Errors
    /// Failures that end the verb.
    pub fn settle(&mut self, outcome: Outcome<()>) -> Outcome<()> {
        match outcome {
            Err(failure) if !failure.ends_the_verb() => self.fail(&failure),
            other => return other,
        }
        Ok(())
    }

    // --- Configuration ---

    /// A setting, by Hadoop's key.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.context.settings.get(key).map(String::as_str)
    }

    // --- File systems and paths ---

    /// The local file system.
    pub fn local(&self) -> FileSystem {
        FileSystem::Local(Local::new(self.context.client_options.umask))
    }

    /// The file system that paths without a scheme lie on.
    ///
    /// # Errors
    /// `fs.defaultFS` is none that we know.
    pub fn default_fs(&mut self) -> Outcome<FileSystem> {
        if let Some(fs) = &self.default {
            return Ok(fs.clone());
        }
        let uri = self.context.default_fs.trim_end_matches('/').to_owned();
        let fs = match uri.split_once(':').map_or("", |(scheme, _)| scheme) {
            "hdfs" => self.connect(uri, self.context.client_options.clone())?,
            "file" => self.local(),
            other => return Err(unknown_scheme(other)),
        };
        self.default = Some(fs.clone());
        Ok(fs)
    }

    fn connect(&self, uri: String, options: ClientOptions) -> Outcome<FileSystem> {
        let umask = options.umask;
        let homes = self.setting("dfs.user.home.dir.prefix").unwrap_or(HOMES_DEFAULT);
        let home = address::absolute(&format!("{homes}/{}", options.user), "/");
        let client = Client::with_checksum(self.context.env.clone(), options, self.checksum()?);
        Ok(FileSystem::Hdfs(Hdfs::new(client, uri, home, umask)))
    }

    /// The configured checksum of new files; as in HDFS, a type that it does not know is none.
    fn checksum(&self) -> Outcome<Checksum> {
        let kind = match self.setting("dfs.checksum.type").map(str::trim) {
            Some("NULL") => ChecksumKind::Null,
            Some("CRC32") => ChecksumKind::Crc32,
            _ => ChecksumKind::Crc32c,
        };
        let Some(text) = self.setting("dfs.bytes-per-checksum") else {
            return Ok(
                Checksum::new(kind, BYTES_PER_CHUNK_DEFAULT).expect("a chunk of 512 bytes is in range")
            );
        };
        let chunk = text.trim().parse().ok().filter(|chunk| *chunk <= CHUNK_BYTES_MAX);
        chunk.and_then(|chunk| Checksum::new(kind, chunk).ok()).ok_or_else(|| {
            let key = "dfs.bytes-per-checksum";
            Failure::usage(format!("{key} is '{text}', but must be a number from 1 to {CHUNK_BYTES_MAX}"))
        })
    }

    /// The file system that a typed path lies on.
    ///
    /// # Errors
    /// A scheme that we do not know.
    pub fn fs_of(&mut self, address: &Address) -> Outcome<FileSystem> {
        match address.scheme.as_deref() {
            None => self.default_fs(),
            Some("file") => match &address.authority {
                None => Ok(self.local()),
                Some(authority) => Err(wrong_file_system(authority, &address.path)),
            },
            Some("hdfs") => match &address.authority {
                None => self.default_fs(),
                Some(authority) => self.cluster(authority),
            },
            Some(other) => Err(unknown_scheme(other)),
        }
    }

    fn cluster(&mut self, authority: &str) -> Outcome<FileSystem> {
        let uri = format!("hdfs://{authority}");
        if uri == self.context.default_fs.trim_end_matches('/') {
            return self.default_fs();
        }
        if let Some(fs) = self.others.get(&uri) {
            return Ok(fs.clone());
        }
        let namenodes = super::namenodes_of(&self.context.settings, &uri).unwrap_or_default();
        let options = ClientOptions { namenodes, ..self.context.client_options.clone() };
        let fs = self.connect(uri.clone(), options)?;
        self.others.insert(uri, fs.clone());
        Ok(fs)
    }

    /// A typed path, taken as it is, with what is there.
    ///
    /// # Errors
    /// Text that is no path, a scheme that we do not know, no answer.
    pub async fn item(&mut self, text: &str) -> Outcome<Item> {
        let address = Address::parse(text)?;
        let fs = self.fs_of(&address)?;
        let path = absolute_of(&address, &fs);
        Item::look_up(&fs, text.to_owned(), path).await
    }

    /// A typed local path, with what is there; a scheme and a host before it are taken away.
    ///
    /// # Errors
    /// No access.
    pub async fn local_item(&self, text: &str) -> Outcome<Item> {
        let path = local_part(text);
        if path.is_empty() {
            return Err(Failure::usage("Can not create a Path from an empty string"));
        }
        let fs = self.local();
        Item::look_up(&fs, path.to_owned(), address::absolute(path, &fs.home())).await
    }

    /// What a typed path with wildcards stands for. Without wildcards: one item, even if nothing is
    /// there. With them: what matches, by path.
    ///
    /// # Errors
    /// As [`Shell::item`], or a pattern that makes no sense.
    pub async fn expand(&mut self, text: &str) -> Outcome<Vec<Item>> {
        let address = Address::parse(text)?;
        let fs = self.fs_of(&address)?;
        if is_bare(&address, &fs) {
            // Java's `Path` keeps it so, and then nothing is there.
            return Ok(vec![Item { fs, text: text.to_owned(), path: String::new(), status: None }]);
        }
        let patterns = glob::expand(&address.path)?;
        let mut found: Vec<(String, Status)> = Vec::new();
        let mut wild = patterns.len() > 1;
        for pattern in &patterns {
            let pattern = if pattern.is_empty() { "." } else { pattern };
            let pattern = if address.is_absolute() && !pattern.starts_with('/') {
                format!("/{pattern}")
            } else {
                pattern.to_owned()
            };
            let pattern = address::absolute(&pattern, &fs.home());
            wild |= match_pattern(&fs, &pattern, &mut found).await?;
        }
        if found.is_empty() && !wild {
            // Whoever makes it wants the characters without their quotes.
            let path = glob::unquote(&absolute_of(&address, &fs));
            return Ok(vec![Item { fs, text: glob::unquote(text), path, status: None }]);
        }
        found.sort_by(|a, b| address::order(&a.0, &b.0));
        let home = fs.home();
        let typed = |path: &str, status: &Status| match (&address.scheme, &address.authority) {
            (Some(_), Some(_)) => fs.qualified(path),
            (Some(scheme), None) => format!("{scheme}://{path}"),
            (None, _) if address.is_absolute() => path.to_owned(),
            (None, _) => address::relative(&home, path, status.is_directory()),
        };
        let item = |(path, status): (String, Status)| {
            let text = typed(&path, &status);
            Item { fs: fs.clone(), text, path, status: Some(status) }
        };
        Ok(found.into_iter().map(item).collect())
    }

    /// As [`Shell::expand`], but a pattern that matches nothing is an error.
    ///
    /// # Errors
    /// As [`Shell::expand`]; nothing matches.
    pub async fn expand_some(&mut self, text: &str) -> Outcome<Vec<Item>> {
        let items = self.expand(text).await?;
        if items.is_empty() { Err(Failure::not_found(text)) } else { Ok(items) }
    }

    /// What all `args` stand for; tells of those that stand for nothing.
    ///
    /// # Errors
    /// Failures that end the verb.
    pub async fn expand_all(&mut self, args: &[String]) -> Outcome<Vec<Item>> {
        let mut items = Vec::new();
        for arg in args {
            match self.expand_some(arg).await {
                Ok(found) => items.extend(found),
                Err(failure) => self.settle(Err(failure))?,
            }
        }
        Ok(items)
    }

    /// Whether there is something; tells if not.
    pub fn is_there(&mut self, item: &Item) -> bool {
        if !item.exists() {
            self.fail(&Failure::not_found(&item.text));
        }
        item.exists()
    }

    /// The children of a directory, to go on with; tells if they cannot be listed.
    pub async fn children_of(&mut self, item: &Item) -> Vec<Item> {
        match item.children().await {
            Ok(children) => children,
            Err(failure) => {
                self.fail(&failure);
                Vec::new()
            }
        }
    }
}

fn output_closed(error: &std::io::Error) -> Failure {
    Failure { kind: Kind::OutputClosed, message: format!("cannot write the output: {error}") }
}

/// What of a typed local path is path: Hadoop looks at neither scheme nor host here.
fn local_part(text: &str) -> &str {
    let slash = text.find('/').unwrap_or(text.len());
    let scheme_end = text[..slash].ends_with(':').then_some(slash);
    let rest = scheme_end.map(|end| &text[end..]).or_else(|| text.strip_prefix("file:")).unwrap_or(text);
    match rest.strip_prefix("//").filter(|_| scheme_end.is_some()) {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => rest,
    }
}

/// `file://tmp/x`: no path of this machine, and with one slash too few it would be quite another one.
fn wrong_file_system(authority: &str, path: &str) -> Failure {
    let local = std::env::current_dir().unwrap_or_default();
    let path = if path.is_empty() { &local.to_string_lossy() } else { path };
    Failure::usage(format!("Wrong FS: file://{authority}{path}, expected: file:///"))
}

fn unknown_scheme(scheme: &str) -> Failure {
    Failure::other(format!("No FileSystem for scheme \"{scheme}\""))
}

/// Whether it is a cluster's URI without a path: not the root, to Java.
fn is_bare(address: &Address, fs: &FileSystem) -> bool {
    address.path.is_empty() && matches!(fs, FileSystem::Hdfs(_))
}

fn absolute_of(address: &Address, fs: &FileSystem) -> String {
    match (&address.scheme, address.path.starts_with('/')) {
        (Some(_), false) if is_bare(address, fs) => String::new(),
        (Some(_), false) => address::absolute(&format!("/{}", address.path), "/"),
        _ => address::absolute(&address.path, &fs.home()),
    }
}

/// Adds what matches an absolute pattern to `found`, and says whether it has wildcards.
async fn match_pattern(fs: &FileSystem, pattern: &str, found: &mut Vec<(String, Status)>) -> Outcome<bool> {
    let names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty()).collect();
    // Paths that may exist, with the status of those that were listed.
    let mut candidates: Vec<(String, Option<Status>)> = vec![("/".into(), None)];
    let mut wild = false;
    for name in names {
        let matcher = glob::Pattern::parse(name)?;
        if !matcher.is_wild() {
            let name = glob::unquote(name);
            if !candidates.is_empty() {
                // Java reads each name as a path of its own, in which `a:` is a scheme.
                Address::parse(&name)?;
            }
            candidates.retain(|(_, status)| status.as_ref().is_none_or(Status::is_directory));
            candidates.iter_mut().for_each(|(path, status)| {
                *path = address::join(path, &name);
                *status = None;
            });
            continue;
        }
        wild = true;
        let mut next = Vec::new();
        for (path, status) in candidates {
            if status.is_some_and(|status| !status.is_directory()) {
                continue;
            }
            next.extend(matching_children(fs, &path, &matcher).await?);
        }
        candidates = next;
    }
    for (path, status) in candidates {
        let status = match status {
            Some(status) => Some(status),
            None => {
                fs.check_name(&path, &fs.qualified(&path))?;
                fs.status(&path).await?
            }
        };
        found.extend(status.map(|status| (path, status)));
    }
    Ok(wild)
}

async fn matching_children(
    fs: &FileSystem,
    path: &str,
    matcher: &glob::Pattern,
) -> Outcome<Vec<(String, Option<Status>)>> {
    fs.check_name(path, &fs.qualified(path))?;
    let children = match fs.list(path).await {
        Ok(children) => children,
        Err(failure) if failure.kind == Kind::NotFound => return Ok(Vec::new()),
        Err(failure) => return Err(failure),
    };
    // A file lists itself, without a name.
    let fits = |child: &Status| !child.name.is_empty() && matcher.matches(&child.name);
    let named = |child: Status| (address::join(path, &child.name), Some(child));
    Ok(children.into_iter().filter(fits).map(named).collect())
}
