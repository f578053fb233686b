//! A fixture of the tests: a master that holds what must happen once, however many children end in whatever way.
//! `shared folder=FOLDER ADDR...`
//!
//! In FOLDER it makes a folder that a guard's destructor deletes, and two files that other destructors write to, one of
//! them that of a thread-local value; half a line is in the buffer of standard output and one in a `BufWriter`. A client's
//! line says how its child ends: `return`, `exit`, `panic`.

#![forbid(unsafe_code)]

mod common;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use tine::Conn;

/// A folder for as long as this lives.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Writes a line to a file when it is dropped.
struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        let mut file =
            File::options().append(true).create(true).open(&self.0).expect("a note can be written");
        writeln!(file, "dropped").expect("a note can be written");
    }
}

thread_local! {
    static ON_THREAD_END: RefCell<Option<Note>> = const { RefCell::new(None) };
}

fn main() -> Result<(), tine::Error> {
    let here = PathBuf::from(common::value("folder").expect("folder=FOLDER is given"));
    let server = common::server()?;

    let folder = Folder(here.join("folder"));
    fs::create_dir(&folder.0).expect("the folder can be made");
    let note = Note(here.join("note"));
    ON_THREAD_END.with_borrow_mut(|slot| *slot = Some(Note(here.join("thread"))));
    let mut buffer = BufWriter::new(File::create(here.join("buffer")).expect("the file can be made"));
    writeln!(buffer, "buffered").expect("there is room in the buffer");
    let mut out = io::stdout().lock();
    write!(out, "half a line;").expect("there is room in the buffer");
    drop(out);

    // The handler owns one guard, as it would a connection to a data base; the others stay here.
    let served = server.serve(move |conn: Conn| {
        let mut line = String::new();
        BufReader::new(&conn).read_line(&mut line).expect("a client says how to end");
        let undone = note.0.exists() || !folder.0.exists();
        writeln!(&conn, "{}", if undone { "something is undone" } else { "all is there" })
            .expect("a client listens");
        match line.trim_end() {
            "exit" => std::process::exit(7),
            "panic" => panic!("as asked"),
            _ => (),
        }
    });
    buffer.flush().expect("the buffer can be written");
    println!("the end");
    served
}
