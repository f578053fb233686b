//! The root file system of a virtual machine, as the kernel takes it: a cpio archive of the kind "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::collections::BTreeSet;
use std::path::{Component, Path};

/// An archive in the making. Folders are made as they are needed.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    made: BTreeSet<String>,
    count: u32,
}

/// Kinds of entries, as in the mode of a file: inode(7).
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

impl Archive {
    /// A folder, if it is not there yet, and those above it.
    pub fn folder(&mut self, path: &Path) {
        let mut above = String::new();
        for part in path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy()),
            _ => None,
        }) {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(&part);
            if self.made.insert(above.clone()) {
                self.entry(&above.clone(), FOLDER, &[]);
            }
        }
    }

    /// A file that may be executed; the first of a name counts.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        self.folder(path.parent().unwrap_or(Path::new("/")));
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned();
        if self.made.insert(name.clone()) {
            self.entry(&name, FILE, content);
        }
    }

    /// The whole of it.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let (length, name_length) = (content.len() as u32, name.len() as u32 + 1);
        // Inode, mode, user, group, links, time, length, device and its own device (two numbers each), name's length, checksum.
        let header = [self.count, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        header.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").as_bytes()));
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    /// Names and contents end at a multiple of four.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_folder_once_and_before_what_is_in_it() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"12345");
        archive.file(Path::new("/a/b/d"), b"");
        archive.file(Path::new("/a/b/c"), b"another");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let at = |name: &str| text.match_indices(&format!("{name}\0")).map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(
            [at("0000a"), at("0000a/b"), at("0000a/b/c"), at("0000TRAILER!!!")].map(|found| found.len()),
            [1; 4]
        );
        assert!(at("0000a")[0] < at("0000a/b")[0] && at("0000a/b")[0] < at("0000a/b/c")[0]);
        assert!(text.contains("12345") && !text.contains("another"));
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 5);
    }
}
