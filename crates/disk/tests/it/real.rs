//! The machine's own files, and what both disks must do alike.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use mobula_disk::fake::CrashDisk;
use mobula_disk::{
    Disk, DiskRef, Kind, Open, RealDisk, create_folder_durably, read_file, sync_names_above,
    write_file_durably,
};

/// Runs a test on the real disk and on the fake one.
fn on_both(test: impl Fn(&dyn Disk, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    test(&*RealDisk::new(), folder.path());
    let fake = CrashDisk::new(1).process();
    fake.create_folder(Path::new("/base")).unwrap();
    test(&*fake, Path::new("/base"));
}

#[test]
fn files_and_folders_alike() {
    on_both(|disk, base| {
        let deep = base.join("a/b/c");
        create_folder_durably(disk, &deep).unwrap();
        sync_names_above(disk, &deep).unwrap();
        create_folder_durably(disk, &deep).unwrap();
        let path = deep.join("f");
        assert_eq!(disk.open(&path, Open::Read).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.open(&path, Open::ReadWrite).unwrap_err().kind(), ErrorKind::NotFound);
        let file = disk.open(&path, Open::CreateNew).unwrap();
        assert_eq!(disk.open(&path, Open::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);

        file.allocate(100_000).unwrap();
        assert_eq!(file.length().unwrap(), 0, "room is no length");
        let parts = [b"abc".as_slice(), b"", b"defg"];
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_all_vectored_at(&slices, 2).unwrap();
        file.write_all_vectored_at(&[IoSlice::new(b"")], 99).unwrap();
        let mut buffer = [9; 9];
        file.read_exact_at(&mut buffer, 0).unwrap();
        assert_eq!(&buffer, b"\0\0abcdefg");
        assert_eq!(file.read_at(&mut buffer, 7).unwrap(), 2);
        assert_eq!(file.read_at(&mut buffer, 900).unwrap(), 0);
        assert_eq!(file.read_exact_at(&mut buffer, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        file.set_length(3).unwrap();
        file.set_length(4).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        disk.open_folder(base).unwrap().sync_all_files().unwrap();
        assert_eq!(disk.open_folder(&base.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(read_file(disk, &path, 4).unwrap(), b"\0\0a\0");
        assert_eq!(read_file(disk, &path, 3).unwrap_err().kind(), ErrorKind::InvalidData);

        write_file_durably(disk, &deep.join("g"), b"one").unwrap();
        write_file_durably(disk, &deep.join("g"), b"2").unwrap();
        assert_eq!(read_file(disk, &deep.join("g"), 10).unwrap(), b"2");
        assert_eq!(disk.look(&deep).unwrap(), Some((Kind::Folder, 0)));
        assert_eq!(disk.look(&path).unwrap(), Some((Kind::File, 4)));
        assert_eq!(disk.look(&path.join("below a file")).unwrap(), None);
        let names: Vec<_> = disk.list(&deep).unwrap().into_iter().map(|e| (e.name, e.length)).collect();
        assert_eq!(names, [("f".into(), 4), ("g".into(), 1)]);

        disk.rename(&path, &base.join("moved")).unwrap();
        assert_eq!(disk.look(&path).unwrap(), None);
        assert_eq!(disk.remove_file(&path).unwrap_err().kind(), ErrorKind::NotFound);
        disk.remove_folder(&base.join("a")).unwrap();
        assert_eq!(disk.remove_folder(&base.join("a")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.list(&base.join("a")).unwrap_err().kind(), ErrorKind::NotFound);
        disk.remove_file(&base.join("moved")).unwrap();
        assert_eq!(disk.list(base).unwrap(), []);
        let space = disk.space(base).unwrap();
        assert!(space.available > 0 && space.available <= space.capacity, "{space:?}");
    });
}

#[test]
fn a_lock_is_taken_once() {
    on_both(|disk, base| {
        let path = base.join("in_use.lock");
        let lock = disk.lock(&path, "4711@here").unwrap();
        let refused = disk.lock(&path, "other").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        let words = refused.to_string();
        assert!(words.contains("in_use.lock") && words.contains("4711@here"), "{words}");
        drop(lock);
        let lock = disk.lock(&path, "x").unwrap();
        drop(lock);
        assert_eq!(read_file(disk, &path, 100).unwrap(), b"x");
    });
}

/// Another process holds the lock: a child of this test, which waits until its input is closed.
#[test]
fn a_lock_of_another_process_is_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in_use.lock");
    std::fs::write(&path, "child").unwrap();
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\nsys.stdin.read()";
    let child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("no python3: not tried");
        return;
    };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line.trim(), "held");
    let refused = RealDisk::new().lock(&path, "me").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert!(refused.to_string().contains("child"), "{refused}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    RealDisk::new().lock(&path, "me").unwrap();
}

#[test]
fn errors_name_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let disk: DiskRef = RealDisk::new();
    let path = folder.path().join("not there");
    for error in [
        disk.open(&path, Open::Read).map(drop).unwrap_err(),
        disk.list(&path).map(drop).unwrap_err(),
        disk.rename(&path, &folder.path().join("x")).unwrap_err(),
        disk.sync_folder(&path).unwrap_err(),
        disk.space(&path).map(drop).unwrap_err(),
    ] {
        assert!(error.to_string().contains("not there"), "{error}");
    }
}

#[test]
fn direct_writes_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::new();
    let path = folder.path().join("direct");
    disk.open(&path, Open::CreateNew).unwrap();
    let file = disk.open(&path, Open::Direct).unwrap();
    let buffer = vec![7; 3 * mobula_disk::DIRECT_ALIGN];
    let shift = buffer.as_ptr().align_offset(mobula_disk::DIRECT_ALIGN);
    file.write_all_at(&buffer[shift..shift + mobula_disk::DIRECT_ALIGN], 0).unwrap();
    assert_eq!(read_file(&*disk, &path, 1 << 20).unwrap(), vec![7; mobula_disk::DIRECT_ALIGN]);
}

#[test]
fn what_is_in_memory_is_read_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RealDisk::new();
    let file = disk.open(&folder.path().join("cached"), Open::CreateNew).unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    file.write_all_at(&bytes, 0).unwrap();
    // How much is in memory is the system's to say: what comes is right, and goes no further than the end.
    for (at, length) in [(0, 300_000), (4_097, 100_000), (299_990, 4_096), (300_000, 1), (1 << 40, 1)] {
        let mut buffer = vec![0xee; length];
        let read = file.read_cached_at(&mut buffer, at as u64);
        assert!(read <= bytes.len().saturating_sub(at), "{read} bytes at {at}");
        assert_eq!(buffer[..read], bytes[at.min(bytes.len())..][..read], "at {at}");
        assert!(buffer[read..].iter().all(|byte| *byte == 0xee), "at {at}: beyond what was read");
    }
}
