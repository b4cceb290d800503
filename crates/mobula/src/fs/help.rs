//! What each verb is, for `-help` and `-usage`. Names, options and arguments are those of Hadoop's
//! shell.

/// One verb.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// Its name, without a dash.
    pub name: &'static str,
    /// Options and arguments.
    pub usage: &'static str,
    /// What it does.
    pub about: &'static str,
    /// How it is called.
    pub example: &'static str,
}

const fn verb(name: &'static str, usage: &'static str, about: &'static str, example: &'static str) -> Verb {
    Verb { name, usage, about, example }
}

const PUT: &str =
    "[-f] [-p] [-l] [-d] [-t <thread count>] [-q <thread pool queue size>] <localsrc> ... <dst>";
const GET: &str =
    "[-f] [-p] [-crc] [-ignoreCrc] [-t <thread count>] [-q <thread pool queue size>] <src> ... <localdst>";

/// All verbs, by name.
pub const VERBS: &[Verb] = &[
    verb(
        "appendToFile",
        "[-n] <localsrc> ... <dst>",
        "Adds local files, or with - standard input, to the end of a file; makes it if it is missing.\n\
         Others see what is added as it comes, and may add only once this is done.\n\
         -n  Begins a new block.",
        "appendToFile today.log /logs/all.log",
    ),
    verb("cat", "[-ignoreCrc] <src> ...", "Prints files.", "cat /notes.txt '/logs/*.log'"),
    verb(
        "checksum",
        "[-v] <src> ...",
        "Prints the checksums of files: an MD5 of MD5s of CRCs, which depends on the block size too. With\n\
         -D dfs.checksum.combine.mode=COMPOSITE_CRC: one CRC of the content alone.\n\
         -v  Adds the block size.",
        "checksum -v /notes.txt",
    ),
    verb(
        "chgrp",
        "[-R] GROUP PATH...",
        "Changes the group, as -chown :GROUP does.",
        "chgrp -R staff /projects",
    ),
    verb(
        "chmod",
        "[-R] <MODE[,MODE]... | OCTALMODE> PATH...",
        "Changes permissions: octal with three digits, or four with the sticky bit; or like u+x,g-w,o=r with\n\
         the letters rwxXt. No umask is applied.\n\
         -R  Changes all that is inside directories as well.",
        "chmod -R g+rX /projects",
    ),
    verb(
        "chown",
        "[-R] [OWNER][:[GROUP]] PATH...",
        "Changes owner, group, or both.\n-R  Changes all that is inside directories as well.",
        "chown alice:staff /projects",
    ),
    verb(
        "concat",
        "<target path> <src path> <src path> ...",
        "Moves the blocks of files to the end of the first one; no byte is copied, and the others are gone then.\n\
         All must be closed, in the same directory, and of blocks no larger than the first one's.",
        "concat /data/all /data/part1 /data/part2",
    ),
    verb("copyFromLocal", PUT, "The same as -put.", "copyFromLocal notes.txt /"),
    verb("copyToLocal", GET, "The same as -get.", "copyToLocal /notes.txt ."),
    verb(
        "count",
        "[-q] [-h] [-v] [-t [<storage type>]] [-u] [-x] [-e] [-s] <path> ...",
        "Counts directories, files and bytes.\n\
         -q  Shows quotas first, and what is left of them.\n\
         -u  Shows quotas alone.\n\
         -t  With -q or -u: quotas by medium, of those given, or of all.\n\
         -h  Writes sizes for people.\n\
         -v  Begins with a line of titles.\n\
         -x  Leaves snapshots out.\n\
         -e  Shows the erasure coding policy.\n\
         -s  Shows what snapshots hold.\n\
         --json  One JSON object a line.",
        "count -q -h -v /projects",
    ),
    verb(
        "cp",
        "[-f] [-p | -p[topax]] [-d] [-t <thread count>] [-q <thread pool queue size>] <src> ... <dst>",
        "Copies files and directories; several go into a directory.\n\
         -f  Replaces what is there.\n\
         -p  Keeps times, owner and permissions, or those of the letters given.\n\
         -d  Writes to the target itself, without a file ._COPYING_ first.\n\
         -t  So many files at the same time.",
        "cp -p /projects/a /backup",
    ),
    verb(
        "createSnapshot",
        "<snapshotDir> [<snapshotName>]",
        "Makes a snapshot of a directory.",
        "createSnapshot /projects monday",
    ),
    verb(
        "deleteSnapshot",
        "<snapshotDir> <snapshotName>",
        "Deletes a snapshot.",
        "deleteSnapshot /projects monday",
    ),
    verb(
        "df",
        "[-h] [<path> ...]",
        "Shows size, used and free bytes of a file system.\n\
         -h  Writes sizes for people.\n--json  One JSON object a line.",
        "df -h /",
    ),
    verb(
        "du",
        "[-s] [-h] [-v] [-x] <path> ...",
        "Shows the bytes of files and of what is in directories, and what all replicas take.\n\
         -s  One line for each path given.\n\
         -h  Writes sizes for people.\n\
         -v  Begins with a line of titles.\n\
         -x  Leaves snapshots out.\n\
         --json  One JSON object a line.",
        "du -s -h /projects",
    ),
    verb(
        "expunge",
        "[-immediate] [-fs <path>]",
        "Puts what is in the trash aside, under the time of day, and deletes what was put aside longer ago\n\
         than fs.trash.interval minutes.\n-immediate  Deletes all of it.",
        "expunge",
    ),
    verb(
        "find",
        "<path> ... <expression> ...",
        "Prints the paths of trees that pass all tests.\n\
         -name pattern, -iname pattern  The name matches; -iname takes no note of case.\n\
         -print, -print0                Prints the path, with a line break or a zero byte.\n\
         expression -a expression       Both hold, as without -a.",
        "find /projects -name '*.rs'",
    ),
    verb(
        "get",
        GET,
        "Fetches files and directories; several go into a directory.\n\
         -f  Replaces what is there.\n\
         -p  Keeps times, owner and permissions.\n\
         -t  So many files at the same time.\n\
         Checksums are always verified; -crc and -ignoreCrc are taken and change nothing.",
        "get -p /projects/a .",
    ),
    verb("getfacl", "[-R] <path>", "Shows access control lists.", "getfacl /projects"),
    verb(
        "getfattr",
        "[-R] {-n name | -d} [-e en] <path>",
        "Shows extended attributes.",
        "getfattr -d /notes.txt",
    ),
    verb(
        "getmerge",
        "[-nl] [-skip-empty-file] <src> <localdst>",
        "Fetches files, and those directly in directories, into one local file.\n\
         -nl               Adds a line break after each file.\n\
         -skip-empty-file  But not after empty ones.",
        "getmerge /logs/2026 all.log",
    ),
    verb("head", "<file>", "Prints the first kilobyte of a file.", "head /notes.txt"),
    verb("help", "[cmd ...]", "Explains verbs, or all.", "help put"),
    verb(
        "ls",
        "[-C] [-d] [-h] [-q] [-R] [-t] [-S] [-r] [-u] [-e] [<path> ...]",
        "Lists directories and files: permissions, replicas, owner, group, bytes, time of the last change, path.\n\
         -C  Paths alone.\n\
         -d  Directories themselves, not what is in them.\n\
         -h  Writes sizes for people.\n\
         -q  Shows ? for characters that cannot be printed.\n\
         -R  All that is inside directories as well.\n\
         -t  Newest first.\n\
         -S  Largest first.\n\
         -r  The other way round.\n\
         -u  Time of the last access instead of the last change.\n\
         -e  Shows the erasure coding policy.\n\
         --json  One JSON object a line.",
        "ls -h -t /projects",
    ),
    verb(
        "mkdir",
        "[-p] <path> ...",
        "Makes directories.\n-p  Those above them too, and it is fine if they are there.",
        "mkdir -p /projects/a/b",
    ),
    verb(
        "moveFromLocal",
        "[-f] [-p] [-l] [-d] <localsrc> ... <dst>",
        "As -put, and removes the local files then.",
        "moveFromLocal today.log /logs",
    ),
    verb("moveToLocal", "<src> <localdst>", "Not there yet; Hadoop has it in name only.", "moveToLocal /a ."),
    verb(
        "mv",
        "<src> ... <dst>",
        "Moves and renames within one file system; several go into a directory.",
        "mv /a /b",
    ),
    verb(
        "put",
        PUT,
        "Stores local files and directories, or with - standard input; several go into a directory.\n\
         -f  Replaces what is there.\n\
         -p  Keeps times, owner and permissions.\n\
         -l  One replica only.\n\
         -d  Writes to the target itself, without a file ._COPYING_ first.\n\
         -t  So many files at the same time.",
        "put -f results /projects",
    ),
    verb(
        "renameSnapshot",
        "<snapshotDir> <oldName> <newName>",
        "Renames a snapshot.",
        "renameSnapshot /projects monday first",
    ),
    verb(
        "rm",
        "[-f] [-r|-R] [-skipTrash] [-safely] <src> ...",
        "Removes files: into the trash, if fs.trash.interval is above 0 here or on the server.\n\
         -f          It is fine if nothing is there.\n\
         -r, -R      Directories too, with all that is inside.\n\
         -skipTrash  For good.\n\
         -safely     Asks before a directory of many files is deleted for good.",
        "rm -r /projects/old",
    ),
    verb(
        "rmdir",
        "[--ignore-fail-on-non-empty] <dir> ...",
        "Removes empty directories.",
        "rmdir /projects/old",
    ),
    verb(
        "setfacl",
        "[-R] [{-b|-k} {-m|-x <acl_spec>} <path>]|[--set <acl_spec> <path>]",
        "Changes access control lists.",
        "setfacl -m user:carol:rw- /notes.txt",
    ),
    verb(
        "setfattr",
        "{-n name [-v value] | -x name} <path>",
        "Changes extended attributes.",
        "setfattr -n user.colour -v red /notes.txt",
    ),
    verb(
        "setrep",
        "[-R] [-w] <rep> <path> ...",
        "Sets the number of replicas of files, and of all files in directories.\n\
         -w  Waits until there are as many.",
        "setrep -w 2 /notes.txt",
    ),
    verb(
        "stat",
        "[format] <path> ...",
        "Prints statuses in a format; %y without one.\n\
         %a %A  permissions, octal and as letters     %n  name\n\
         %b     bytes                                 %o  block size\n\
         %F     kind                                  %r  replicas\n\
         %g %u  group, owner                          %y %x  time of the last change, access\n\
         %Y %X  the same in milliseconds since 1970\n\
         --json  One JSON object a line.",
        "stat '%n %b %r' /notes.txt",
    ),
    verb(
        "tail",
        "[-f] [-s <sleep interval>] <file>",
        "Prints the last kilobyte of a file, also of one that is being written.\n\
         -f  And what is added to it when its writer flushes, until stopped.\n\
         -s  Looks every so many milliseconds.",
        "tail -f /logs/all.log",
    ),
    verb(
        "test",
        "-[defswrz] <path>",
        "Exits with 0 for yes and 1 for no.\n\
         -d  is a directory     -s  has bytes\n\
         -e  is there           -z  has none\n\
         -f  is a file          -r, -w  may be read, written",
        "test -e /notes.txt",
    ),
    verb(
        "text",
        "[-ignoreCrc] <src> ...",
        "Prints files, unpacked if they are gzip or bzip2, and what is in SequenceFiles and Avro's data files.",
        "text /logs/old.gz",
    ),
    verb(
        "touch",
        "[-a] [-m] [-t TIMESTAMP (yyyyMMdd:HHmmss) ] [-c] <path> ...",
        "Sets times to now, and makes files that are missing.\n\
         -a, -m  Only the time of access, or of change.\n\
         -t      This time, in the local time zone.\n\
         -c      Makes none.",
        "touch -t 20260102:030405 /notes.txt",
    ),
    verb("touchz", "<path> ...", "Makes empty files; those that are there must be empty.", "touchz /done"),
    verb(
        "truncate",
        "[-w] <length> <path> ...",
        "Cuts files to a length. At a block's end that is done at once; within a block its nodes have to\n\
         cut their replicas first, and nobody may write to the file meanwhile.\n\
         -w  Waits until it is done.",
        "truncate -w 1024 /notes.txt",
    ),
    verb("usage", "[cmd ...]", "Shows the options of verbs, or of all.", "usage put"),
];

/// Older names, the verbs and options that stand for them, and how that is told.
pub const DEPRECATED: &[(&str, &str, &str, &str)] =
    &[("lsr", "ls", "-R", "ls -R"), ("rmr", "rm", "-r", "-rm -r"), ("dus", "du", "-s", "du -s")];

/// As Hadoop's shell begins: scripts look for it.
const PREFIX: &str = "Usage: hadoop fs [generic options]";

/// What whoever mistook a verb is told.
pub const WHERE_TO_LOOK: &str = "Usage: mobula fs -help lists the verbs";

const GENERIC: &str = "\
Generic options:
  -D <property=value>         sets a configuration key of Hadoop's
  -fs <hdfs://host:port>      the file system of paths without one, as fs.defaultFS
  -conf <file>                one more Hadoop configuration file";

/// The verb of that name.
pub fn by_name(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

impl Verb {
    /// Its usage in one line.
    pub fn usage_line(&self) -> String {
        format!("{PREFIX} {}", self.synopsis())
    }

    fn synopsis(&self) -> String {
        format!("-{} {}", self.name, self.usage).trim_end().to_owned()
    }

    /// Its explanation.
    pub fn help(&self) -> String {
        let about = self.about.replace('\n', "\n  ");
        format!("{} :\n  {about}\n  Example: mobula fs -{}", self.synopsis(), self.example)
    }
}

/// The usage of one verb, an older name among them.
pub fn usage_of(name: &str) -> Option<String> {
    let older = || DEPRECATED.iter().find(|(old, ..)| *old == name);
    let verb = by_name(name).map(Verb::usage_line);
    verb.or_else(|| older().map(|(old, ..)| format!("{PREFIX} -{old}")))
}

/// The explanation of one verb, an older name among them.
pub fn help_of(name: &str) -> Option<String> {
    let older = || DEPRECATED.iter().find(|(old, ..)| *old == name);
    let verb = by_name(name).map(Verb::help);
    verb.or_else(|| older().map(|(old, .., told)| format!("-{old} :\n  (DEPRECATED) Same as '{told}'")))
}

/// The usage of all verbs.
pub fn usage_of_all() -> String {
    let lines: Vec<String> = VERBS.iter().map(|verb| format!("\t[{}]", verb.synopsis())).collect();
    format!("{PREFIX}\n{}\n\n{GENERIC}", lines.join("\n"))
}

/// The explanation of all verbs.
pub fn help_of_all() -> String {
    let texts: Vec<String> = VERBS.iter().map(Verb::help).collect();
    let lines: Vec<String> = VERBS.iter().map(|verb| format!("\t[{}]", verb.synopsis())).collect();
    format!("{PREFIX}\n{}\n\n{}\n\n{GENERIC}", lines.join("\n"), texts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn verbs_stand_in_order_and_explain_themselves() {
        assert!(VERBS.is_sorted_by(|a, b| a.name < b.name));
        for verb in VERBS {
            assert!(!verb.about.is_empty(), "{}", verb.name);
            assert!(verb.example.split(' ').next() == Some(verb.name), "{}", verb.name);
        }
        for (_, verb, ..) in DEPRECATED {
            assert!(by_name(verb).is_some());
        }
        assert_eq!(
            usage_of("rmdir").unwrap(),
            "Usage: hadoop fs [generic options] -rmdir [--ignore-fail-on-non-empty] <dir> ..."
        );
        assert_eq!(usage_of("lsr").unwrap(), "Usage: hadoop fs [generic options] -lsr");
        assert_eq!(help_of("rmr").unwrap(), "-rmr :\n  (DEPRECATED) Same as '-rm -r'");
        assert_eq!((usage_of("nosuch"), help_of("")), (None, None));
    }
}
