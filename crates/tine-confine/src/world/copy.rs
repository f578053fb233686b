//! Copies: what is small, and is there for everybody to read, is copied into the root and not mounted in it.
//!
//! Each mount costs every child that has a mount tree of its own more than a microsecond when it is born, and again when it ends. Of what
//! programs look up in /etc there are two dozen.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Places;

/// What may be copied at most.
struct Room {
    bytes: u64,
    entries: u32,
}

/// For each path of its own.
const ROOM: Room = Room { bytes: 256 << 10, entries: 32 };

/// What a file in memory takes its room in.
const PAGE: u64 = 4096;

/// Whether a file or directory may be copied with all that is in it: nothing there is kept from anybody, or to be executed, and it is not
/// much. A copy is for everybody to read, so this is asked again right before.
pub(super) fn is_apt(path: &Path) -> bool {
    let mut room = Room { ..ROOM };
    fits(path, &mut room).unwrap_or(false)
}

fn fits(path: &Path, room: &mut Room) -> io::Result<bool> {
    let about = fs::symlink_metadata(path)?;
    let (kind, others) = (about.file_type(), about.mode() & 0o7);
    let bytes = if kind.is_file() { about.len().next_multiple_of(PAGE) } else { 0 };
    let left = room.bytes.checked_sub(bytes).zip(room.entries.checked_sub(1));
    let Some((bytes, entries)) = left.filter(|_| is_everybodys(kind, others)) else { return Ok(false) };
    *room = Room { bytes, entries };
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            if !fits(&entry?.path(), room)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is_everybodys(kind: FileType, others: u32) -> bool {
    kind.is_symlink() || kind.is_file() && others == 0o4 || kind.is_dir() && others == 0o5
}

/// Copies it to its own place in a root that is being built.
///
/// # Errors
/// What reading it and making it say.
pub(super) fn put(path: &Path, places: &mut Places<'_>) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        places.directories(path)?;
        for entry in fs::read_dir(path)? {
            put(&entry?.path(), places)?;
        }
        Ok(())
    } else if kind.is_symlink() {
        places.link(&fs::read_link(path)?, path)
    } else {
        places.file(path, &fs::read(path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("tine-copy-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            allow(&path, 0o755);
            Folder(path)
        }

        fn file(&self, name: &str, bytes: u64) -> std::path::PathBuf {
            let path = self.0.join(name);
            fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            allow(&path, 0o644);
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn allow(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn so_many_bytes_are_copied_and_one_more_is_not() {
        let folder = Folder::new("bytes");
        assert!(is_apt(&folder.file("less", ROOM.bytes - 1)));
        assert!(is_apt(&folder.file("most", ROOM.bytes)));
        assert!(!is_apt(&folder.file("more", ROOM.bytes + 1)));
    }

    #[test]
    fn so_many_entries_are_copied_and_one_more_is_not() {
        let folder = Folder::new("entries");
        // The directory is one itself.
        for number in 2..ROOM.entries {
            symlink("nowhere", folder.0.join(number.to_string())).unwrap();
        }
        assert!(is_apt(&folder.0));
        symlink("nowhere", folder.0.join("last")).unwrap();
        assert!(is_apt(&folder.0));
        symlink("nowhere", folder.0.join("one more")).unwrap();
        assert!(!is_apt(&folder.0));
    }

    #[test]
    fn what_is_not_for_everybody_to_read_is_not_copied_nor_what_is_executed() {
        for (number, (mode, apt)) in
            [(0o644, true), (0o444, true), (0o640, false), (0o755, false), (0o666, false)]
                .into_iter()
                .enumerate()
        {
            let folder = Folder::new(&format!("modes-{number}"));
            allow(&folder.file("file", 10), mode);
            assert_eq!(is_apt(&folder.0), apt, "{mode:o}");
        }
        let folder = Folder::new("closed");
        allow(&folder.0, 0o750);
        assert!(!is_apt(&folder.0));
        assert!(!is_apt(&folder.0.join("nothing")));
    }
}
