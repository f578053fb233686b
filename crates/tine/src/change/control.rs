//! The line between a host program and the master that it has started: what is said on it, and the master's end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tine_os::{fd, socket};

use crate::event::Status;
use crate::life::admit::{Reason, Refusals};

/// What the program says to the master, and what it is told.
pub(crate) const ASK_STATUS: u8 = b's';
pub(crate) const DRAIN: u8 = b'd';
pub(crate) const STOP: u8 = b'k';
pub(crate) const READY: u8 = b'R';
pub(crate) const FAILED: u8 = b'F';
pub(crate) const STATUS: u8 = b'S';
pub(crate) const ENDED: u8 = b'E';

/// A tag, seven numbers, and how many were refused for each reason.
pub(crate) const MESSAGE: usize = 1 + (7 + Reason::ALL.len()) * 8;

/// The master's end of the line.
#[derive(Debug)]
pub(crate) struct Control {
    line: OwnedFd,
    broken: bool,
}

impl Control {
    /// Over one end of a socket pair, on which nothing is ever waited for.
    pub(crate) fn new(line: OwnedFd) -> Control {
        // A line that blocks would still work, if a program asked and did not listen.
        let _ = fd::set_blocking(&line, false);
        Control { line, broken: false }
    }

    /// Says that clients are being taken.
    pub(crate) fn begin(&self) {
        let _ = socket::send(&self.line, &[READY]);
    }

    /// Hears what the program wishes and answers it; gives how many times an end was asked for.
    pub(crate) fn heed(&mut self, status: Status) -> u32 {
        let mut wishes = [0; 64];
        match fd::read(&self.line, &mut wishes) {
            Ok(0) if self.broken => 0,
            Ok(0) => {
                self.broken = true;
                1
            }
            Ok(length) => wishes[..length].iter().map(|wish| self.grant(*wish, status)).sum(),
            Err(_) => 0,
        }
    }

    /// Says that the server has ended.
    pub(crate) fn end(&self, status: Status) {
        self.tell(ENDED, status);
    }

    fn grant(&self, wish: u8, status: Status) -> u32 {
        match wish {
            ASK_STATUS => {
                self.tell(STATUS, status);
                0
            }
            DRAIN => 1,
            STOP => 2,
            _ => 0,
        }
    }

    fn tell(&self, tag: u8, status: Status) {
        let Status { open, most, waiting, refused, served, failed, paused, spares } = status;
        let mut message = [tag; MESSAGE];
        let numbers =
            [open as u64, most as u64, waiting as u64, served, failed, paused as u64, spares as u64];
        let numbers = numbers.into_iter().chain(Reason::ALL.map(|why| refused.of(why)));
        for (place, number) in message[1..].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *place = number.to_ne_bytes();
        }
        // A program that asks and does not listen is told nothing.
        let _ = socket::send(&self.line, &message);
    }

    /// Whether there is still somebody to hear.
    pub(crate) fn is_alive(&self) -> bool {
        !self.broken
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

/// Reads what the master has said of how it stands.
pub(crate) fn status(message: &[u8; MESSAGE]) -> Status {
    let numbers = message[1..].as_chunks::<8>().0;
    let number = |at: usize| u64::from_ne_bytes(numbers[at]);
    Status {
        open: number(0) as usize,
        most: number(1) as usize,
        waiting: number(2) as usize,
        served: number(3),
        failed: number(4),
        paused: number(5) as usize,
        spares: number(6) as usize,
        refused: Refusals::new(std::array::from_fn(|why| number(7 + why))),
    }
}
