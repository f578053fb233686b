//! Serve: what a child does with its client, be it a handler or a program.

use std::any::Any;
use std::convert::Infallible;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, Termination};

use tine_confine::{Failure, Step};
use tine_os::exec::exec;
use tine_os::fork::exit;
use tine_os::{fd, socket};

use crate::addr::Transport;
use crate::conn::Conn;
use crate::handler::Handler;
use crate::life::bind::Arrival;
use crate::life::fork::Workplace;
use crate::program::{Client, Program, Sockets, Stderr, Variables};

/// What children do.
pub(crate) trait Service {
    /// In the master, before the fork: lays out what this client's child will need.
    fn prepare(&mut self, _arrival: &Arrival, _transport: Transport, _from_same: usize) {}

    /// In the child; comes back only to say what failed before it could begin.
    fn serve(&mut self, workplace: &Workplace, arrival: Arrival) -> Failure;
}

/// A handler's children: 0 is `/dev/null`, 1 and 2 the log, 3 the client.
pub(crate) struct HandlerService<H> {
    pub handler: H,
    pub hooks: Vec<Box<dyn Fn()>>,
}

impl<H: Handler> Service for HandlerService<H> {
    fn serve(&mut self, workplace: &Workplace, arrival: Arrival) -> Failure {
        let Arrival { fd, peer, local } = arrival;
        // Its number will belong to nobody when it has been placed, so nobody may close it.
        let fd = ManuallyDrop::new(fd);
        let fds = [workplace.null.as_fd(), workplace.log(), workplace.log(), fd.as_fd()];
        if let Err(failure) = workplace.enter(&fds) {
            return failure;
        }
        match workplace.settle(fds.len()).and_then(|()| fd::placed(3)) {
            Err(why) => Step::Descriptors.failed()(why),
            Ok(fd) => run(|| {
                self.hooks.iter().for_each(|hook| hook());
                match self.handler.prepare() {
                    Ok(()) => self.handler.serve(Conn::new(fd, peer, local)).report(),
                    Err(why) => Err::<Infallible, _>(why).report(),
                }
            }),
        }
    }
}

/// Runs an author's code to the process's end: whatever it does, the master's code is never come back to.
pub(crate) fn run(code: impl FnOnce() -> ExitCode) -> ! {
    let ended = catch_unwind(AssertUnwindSafe(code));
    // What the child itself has written; the master's part was flushed before the fork.
    let _ = io::stdout().flush();
    exit(ended.map_or_else(forget, number))
}

/// The status of a panic, whose message the panic hook has printed. The payload's destructor might panic again.
fn forget(payload: Box<dyn Any + Send>) -> u8 {
    std::mem::forget(payload);
    101
}

/// The number in an `ExitCode`, which std shows only by comparison.
fn number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|status| ExitCode::from(*status) == code).unwrap_or(1)
}

impl Service for Program {
    fn prepare(&mut self, arrival: &Arrival, transport: Transport, from_same: usize) {
        self.environ.reset();
        if let Some(describe) = &mut self.describe {
            let Arrival { fd, peer, local } = arrival;
            let cookie = socket::cookie(fd).unwrap_or(0);
            let client = Client { peer, local, transport, from_same, cookie };
            describe(&mut Variables(&mut self.environ), &client);
        }
        self.environ.seal();
    }

    fn serve(&mut self, workplace: &Workplace, arrival: Arrival) -> Failure {
        // As above: its number is closed when the descriptors have been placed, and exec may still fail.
        let arrival = ManuallyDrop::new(arrival);
        // Its number is closed when the descriptors are placed, so nobody may close it again.
        let arrival = ManuallyDrop::new(arrival);
        let client = arrival.fd.as_fd();
        let errors = match self.stderr {
            Stderr::Log => workplace.log(),
            Stderr::Socket => client,
            Stderr::Null => workplace.null.as_fd(),
        };
        let in_and_out: [BorrowedFd<'_>; 3] = [client, client, errors];
        let third = [workplace.null.as_fd(), workplace.log(), errors, client];
        let fds: &[_] = match self.sockets {
            Sockets::InAndOut => &in_and_out,
            Sockets::Third => &third,
        };
        match workplace.enter(fds) {
            Err(failure) => failure,
            Ok(()) => Step::Exec.failed()(exec(&self.argv, &mut self.environ)),
        }
    }
}
