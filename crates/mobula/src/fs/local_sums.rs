//! Checksums beside local files, as Hadoop's local file system keeps them: `.NAME.crc` for `NAME`, with
//! `crc` and a zero byte, the bytes that one checksum covers, and the CRC-32 of each so many bytes, all
//! big-endian (`ChecksumFileSystem`). They are written where asked for, follow their file, and are never
//! believed: what this machine's disk says goes.

use std::fs;

use mobula_wire::checksum::{BYTES_PER_CHUNK_DEFAULT, ChecksumKind};

use super::address;
use super::failure::{Failure, Outcome};

const MAGIC: &[u8; 4] = b"crc\0";
const CHUNK: usize = BYTES_PER_CHUNK_DEFAULT as usize;

/// Checksums of a file that is being written.
#[derive(Debug, Default)]
pub struct LocalSums {
    /// Of whole chunks.
    sums: Vec<u8>,
    /// Of the chunk that is not whole yet, with its length.
    last: u32,
    length: usize,
}

impl LocalSums {
    /// The file goes on with `data`.
    pub fn add(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(CHUNK - self.length));
            self.last = ChecksumKind::Crc32.append(self.last, part);
            self.length += part.len();
            data = rest;
            if self.length == CHUNK {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        self.sums.extend_from_slice(&self.last.to_be_bytes());
        (self.last, self.length) = (0, 0);
    }

    /// Writes them beside the file at `path`, which is whole.
    ///
    /// # Errors
    /// The local file system's.
    pub fn store(mut self, path: &str) -> Outcome<()> {
        if self.length > 0 {
            self.end_chunk();
        }
        let path = path_for(path);
        let bytes = [MAGIC, &BYTES_PER_CHUNK_DEFAULT.to_be_bytes()[..], &self.sums].concat();
        fs::write(&path, bytes).map_err(|error| Failure::local(&path, &error))
    }
}

/// Whether a file of that name belongs to another one.
pub fn is_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".crc")
}

/// Where the checksums of the file at `path` are.
fn path_for(path: &str) -> String {
    address::join(address::parent(path).unwrap_or("/"), &format!(".{}.crc", address::name(path)))
}

/// The file at `path` is gone, and its checksums go too.
pub fn remove(path: &str) {
    // Most files have none.
    let _ = fs::remove_file(path_for(path));
}

/// The file at `source` is at `target` now: old checksums there are not its.
pub fn rename(source: &str, target: &str) {
    if fs::rename(path_for(source), path_for(target)).is_err() {
        remove(target);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_for_each_512_bytes_however_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f").to_str().unwrap().to_owned();
        let data: Vec<u8> = (0..1_300_u32).map(|at| at as u8).collect();
        let crcs = data.chunks(512).flat_map(|chunk| ChecksumKind::Crc32.crc(chunk).to_be_bytes());
        let expected: Vec<u8> = b"crc\0\0\0\x02\0".iter().copied().chain(crcs).collect();
        for piece in [1, 500, 512, 5_000] {
            let mut sums = LocalSums::default();
            data.chunks(piece).for_each(|piece| sums.add(piece));
            sums.store(&path).unwrap();
            assert_eq!(fs::read(folder.path().join(".f.crc")).unwrap(), expected, "{piece}");
        }
        rename(&path, &format!("{path}2"));
        assert!(folder.path().join(".f2.crc").exists() && !folder.path().join(".f.crc").exists());
        rename(&path, &format!("{path}2"));
        assert!(!folder.path().join(".f2.crc").exists(), "they were another file's");
        assert!(is_name(".f.crc") && !is_name("f.crc") && !is_name(".crc.f"));
    }
}
