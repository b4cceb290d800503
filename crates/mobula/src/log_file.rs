//! A log file of bounded length: when it is full it becomes `FILE.1`, what was that `FILE.2`, and so on.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A log file of this length is put aside, bytes.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// So many are kept aside: 60 MiB of log for a server in all.
const LOG_FILES_ASIDE: usize = 5;

/// A file that rotates. Each `write` is one record and stays whole in one file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    length_max: u64,
}

impl LogFile {
    /// Opens `path` to add to it.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub fn open(path: &Path) -> Result<LogFile> {
        LogFile::with_length(path, LOG_BYTES_MAX)
            .with_context(|| format!("cannot write the log {}", path.display()))
    }

    fn with_length(path: &Path, length_max: u64) -> io::Result<LogFile> {
        let file = File::options().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(LogFile { path: path.into(), file, length, length_max })
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..LOG_FILES_ASIDE).rev() {
            match std::fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.aside(1))?;
        *self = LogFile::with_length(&self.path, self.length_max)?;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        // A log that cannot rotate grows on: what it has to say is worth more than its bound.
        if self.length > 0 && self.length + record.len() as u64 > self.length_max && self.rotate().is_err() {
            self.length = 0;
        }
        self.file.write_all(record)?;
        self.length += record.len() as u64;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_rotates_and_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for number in 0..20 {
            // Opened anew each time, as by restarts: the length goes on.
            let mut log = LogFile::with_length(&path, 20).unwrap();
            assert_eq!(log.write(format!("record {number:02}\n").as_bytes()).unwrap(), 10);
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("log"), "record 18\nrecord 19\n");
        assert_eq!(read("log.1"), "record 16\nrecord 17\n");
        assert_eq!(read("log.5"), "record 08\nrecord 09\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1 + LOG_FILES_ASIDE);
    }

    #[test]
    fn a_record_longer_than_the_file_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::with_length(&path, 4).unwrap();
        log.write_all(b"longer than four\n").unwrap();
        log.write_all(b"x\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("log.1")).unwrap(), "longer than four\n");
    }
}
