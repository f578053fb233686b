//! Datagrams: read, handle, read again, in a worker. A fork for each would cost more than the work.
//!
//! The loop asks for no memory, but for what a handler itself asks for and for a reply longer than any before.

use std::os::fd::AsFd;
use std::process::ExitCode;

use tine_confine::{Failure, Step};
use tine_os::datagram::{Basket, wait_for_either};
use tine_os::fd;

use crate::handler::{Datagram, DatagramHandler, Reply};
use crate::life::reap::Report;
use crate::life::serve::run;
use crate::mode::bench::Bench;
use crate::mode::guard::Guard;

/// A worker's life: it ends when the master tells it to finish, or is gone, and its hands are empty.
pub(crate) fn handle(
    bench: &Bench<'_>,
    basket: &Basket,
    handler: &mut dyn DatagramHandler,
    guard: &Guard,
) -> Failure {
    let mut batch = match basket.open().map_err(Step::Descriptors.failed()) {
        Ok(batch) => batch,
        Err(failure) => return failure,
    };
    if let Some(ip) = bench.listener.only_address() {
        batch.bound_to(ip);
    }
    let fds = match bench.enter(&[]) {
        Ok(fds) => fds,
        Err(failure) => return failure,
    };
    let lost = batch.recover();
    bench.desk.reports.send(&Report::Begun { lost });
    if let Err(why) = bench.desk.settle(3 + fds.len(), &[]) {
        return Step::Descriptors.failed()(why);
    }
    run(|| {
        let (socket, life) = (&fds[0], &fds[1]);
        let mut reply = Reply::default();
        loop {
            while let Some(got) = batch.take() {
                let (payload, source) = (got.payload, got.source);
                let datagram =
                    Datagram { payload, source, destination: got.destination, truncated: got.truncated };
                reply.wanted = false;
                reply.bytes.clear();
                handler.handle(&datagram, &mut reply);
                let wanted = reply.wanted && guard.lets(&datagram, reply.bytes.len());
                batch.done(wanted.then_some(&reply.bytes[..]));
            }
            if !batch.is_empty() {
                // A full buffer is waited for; a reply that the network will not have is dropped, as any datagram may be.
                if batch.send(socket).is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock) {
                    let _ = fd::wait_writable(socket.as_fd());
                }
                continue;
            }
            if batch.receive(socket).is_ok_and(|received| received > 0) {
                continue;
            }
            // A failed wait is repeated: nothing else can be done about it.
            if let Ok([false, true]) = wait_for_either([socket.as_fd(), life.as_fd()]) {
                return ExitCode::SUCCESS;
            }
        }
    })
}
