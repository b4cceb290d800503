//! Why a verb, or one of its paths, failed: the words of Hadoop's shell (`PathIOException` and its
//! kind), and what they mean for the verbs that follow.

use std::fmt;
use std::io;

use mobula_client::ClientError;
use mobula_rpc::CallError;
use mobula_wire::remote::class;
use nix::errno::Errno;

/// What a failure is to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is nothing at the path; `rm -f` forgives it.
    NotFound,
    /// Something is there already.
    AlreadyExists,
    /// Permission denied.
    Denied,
    /// Anything else that concerns one path; the verb goes on with the next.
    Other,
    /// The arguments make no sense: the verb's usage follows, exit code 255 (Java's -1).
    Usage,
    /// Nobody reads our output any more.
    OutputClosed,
}

/// A failure and the line that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it is.
    pub kind: Kind,
    /// The line, without the verb's name before it.
    pub message: String,
}

/// What a verb's step gives.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Any failure that concerns one path.
    pub fn other(message: impl Into<String>) -> Failure {
        Failure { kind: Kind::Other, message: message.into() }
    }

    /// Arguments that make no sense (Java's `IllegalArgumentException`).
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { kind: Kind::Usage, message: message.into() }
    }

    /// `PathIOException`: a path and what is wrong with it.
    pub fn path(path: &str, what: &str) -> Failure {
        Failure::other(format!("`{path}': {what}"))
    }

    /// `PathNotFoundException`.
    pub fn not_found(path: &str) -> Failure {
        Failure { kind: Kind::NotFound, message: format!("`{path}': No such file or directory") }
    }

    /// `PathNotFoundException` that names the whole path too, where it is not what was typed.
    pub fn not_found_in_full(path: &str, qualified: &str) -> Failure {
        let mut failure = Failure::not_found(path);
        if path != qualified {
            failure.message.push_str(&format!(": `{qualified}'"));
        }
        failure
    }

    /// `PathExistsException`.
    pub fn exists(path: &str) -> Failure {
        Failure { kind: Kind::AlreadyExists, message: format!("`{path}': File exists") }
    }

    /// `PathIsDirectoryException`.
    pub fn is_directory(path: &str) -> Failure {
        Failure::path(path, "Is a directory")
    }

    /// `PathIsNotDirectoryException`.
    pub fn not_directory(path: &str) -> Failure {
        Failure::path(path, "Is not a directory")
    }

    /// `PathIsNotEmptyDirectoryException`.
    pub fn not_empty(path: &str) -> Failure {
        Failure::path(path, "Directory is not empty")
    }

    /// A `PathIOException` whose cause nobody knows: the call said no.
    pub fn refused(path: &str) -> Failure {
        Failure::path(path, "Input/output error")
    }

    /// As [`Failure::refused`], with what was tried.
    pub fn refused_to(operation: &str, path: &str, target: Option<&str>) -> Failure {
        let target = target.map(|target| format!(" to `{target}'")).unwrap_or_default();
        Failure::other(format!("{operation} `{path}'{target}: Input/output error"))
    }

    /// A failure of the local file system at `path`.
    pub fn local(path: &str, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound => Failure::not_found(path),
            io::ErrorKind::AlreadyExists => Failure::exists(path),
            io::ErrorKind::PermissionDenied => {
                Failure { kind: Kind::Denied, ..Failure::in_words(path, error) }
            }
            _ => Failure::in_words(path, error),
        }
    }

    /// A failure of the local file system at `path`, whatever it is.
    pub fn in_words(path: &str, error: &io::Error) -> Failure {
        let system = error.raw_os_error().map(|number| Errno::from_raw(number).desc());
        Failure::other(format!("{path} ({})", system.map_or_else(|| error.to_string(), str::to_owned)))
    }

    /// Whether the verb ends here, whatever paths are left.
    pub fn ends_the_verb(&self) -> bool {
        matches!(self.kind, Kind::Usage | Kind::OutputClosed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        if matches!(error, ClientError::BlockSize { .. }) {
            return Failure::usage(error.to_string());
        }
        if let Some(host) = unknown_host(&error) {
            return Failure::usage(format!("java.net.UnknownHostException: {host}"));
        }
        let kind = match error.class() {
            Some(class::FILE_NOT_FOUND) => Kind::NotFound,
            Some(class::FILE_ALREADY_EXISTS) => Kind::AlreadyExists,
            Some(class::ACCESS_CONTROL) => Kind::Denied,
            _ => Kind::Other,
        };
        // The shell shows the message alone: a user has no use for the class of an exception.
        let message = match error {
            ClientError::Remote(remote) => remote.message,
            other => other.to_string(),
        };
        Failure { kind, message }
    }
}

/// The host of a server whose name nobody knows. The system's resolver says so in words only.
fn unknown_host(error: &ClientError) -> Option<&str> {
    let ClientError::NameNode(CallError::Connect { address, source }) = error else { return None };
    let unknown = source.to_string().contains("failed to lookup address information");
    unknown.then(|| address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_hadoops() {
        assert_eq!(Failure::not_found("/a").message, "`/a': No such file or directory");
        assert_eq!(
            Failure::not_found_in_full("/a", "hdfs://h:1/a").message,
            "`/a': No such file or directory: `hdfs://h:1/a'"
        );
        assert_eq!(Failure::not_found_in_full("/a", "/a").message, "`/a': No such file or directory");
        assert_eq!(
            Failure::refused_to("rename", "a._COPYING_", Some("a")).message,
            "rename `a._COPYING_' to `a': Input/output error"
        );
    }
}
