//! The model: a process for each client. **Read this first.**
//!
//! Accept; fork a duplicate to talk over that stream; accept again. The child closes the listener, the parent closes the
//! client, the dead are reaped. Perl's Cookbook has it as recipe 17.11, and the classic way to write it is wrong twice:
//!
//! * The first death interrupts `accept`, which then fails, and the loop takes that for its end: one client is served and
//!   nobody after. Here no signal has a handler, so nothing is ever interrupted: TERM, INT and the rest are read like
//!   any other input, and deaths are told by a descriptor as well.
//! * A reaper that loops until the kernel says "no children" spins while any other child lives, for "nobody has died yet"
//!   is a different answer. Here the dead are named one by one, and only they are waited for.
//!
//! What surrounds these lines is in `master.rs` (what the master holds), and what each line does in `life/`, in the same
//! order: bind, admit, fork, serve, reap.

use crate::error::StartError;
use crate::life::serve::Service;
use crate::master::Master;

/// How many clients of one listener are taken before the dead, the signals and the other listeners are looked at again.
const CLIENTS_A_TURN: usize = 16;

/// Serves until the end was asked for and the last child has ended.
pub(crate) fn run(master: &mut Master, service: &mut dyn Service) -> Result<(), StartError> {
    // Waits for clients, deaths and signals alike. At the limit the listeners are left out: the kernel's queue is the
    // waiting room then, and it costs nobody anything.
    while let Some(listeners) = master.wait()? {
        // TERM or INT: nobody new, whoever is here may finish. A second one means now. Deadlines that are over, too.
        master.heed_signals(service);

        // Children that confined processes were asked to bear (`mode/template.rs`) are there.
        master.hear_births();

        // A death becomes an outcome with its bill; its slot is free for whoever waits.
        while let Some(child) = master.next_dead() {
            master.reap(child, service);
        }

        // A child that was sent by a balancer has found out who its client is: is that one to be let in?
        master.hear_names(service);
        // Those who wait in turn come before those who arrive.
        master.call_waiting(service);

        for listener in listeners {
            for _ in 0..CLIENTS_A_TURN {
                if !master.has_room(listener) {
                    break;
                }
                let Some(client) = master.accept(listener) else { break };
                // It is refused, waits, or is forked a child. In the child this does not come back: it closes what is the
                // master's, serves, and exits. The master closes its copy of the connection at once, so that the client
                // sees the end when the child ends.
                master.admit(listener, client, service);
            }
        }

        // When there is nothing else to do: a child for somebody who comes later, where that was asked for.
        master.make_spare(service);
    }
    Ok(())
}
