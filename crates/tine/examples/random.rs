//! A fixture of the tests: what three sources of randomness give each child, as one line of hexadecimal numbers: 16
//! bytes of the kernel's, 8 of a generator that is reseeded by a hook after each fork, 8 of one that is not, and the
//! hash of the same number by `HashMap`'s own hasher.

#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::rc::Rc;
use tine::Conn;
use tine_testkit::Pattern;

fn main() -> Result<(), tine::Error> {
    // As a program does that has used a map before it serves: from here on the keys are in its memory.
    RandomState::new().hash_one(0);
    let (mended, copied) = (Rc::new(Cell::new(1)), Cell::new(1));
    let reseeded = mended.clone();
    let server = common::server()?.after_fork(move || {
        let seed = kernel().expect("the kernel's random numbers");
        reseeded.set(u64::from_ne_bytes(seed[..8].try_into().expect("eight of sixteen bytes")));
    });
    server.serve(move |conn: Conn| -> io::Result<()> {
        let bytes = u128::from_ne_bytes(kernel()?);
        let [mended, copied] = [mended.get(), copied.get()].map(|state| Pattern::new(state).next_u64());
        let hash = RandomState::new().hash_one(4711);
        writeln!(&conn, "{bytes:032x} {mended:016x} {copied:016x} {hash:016x}")
    })
}

fn kernel() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
