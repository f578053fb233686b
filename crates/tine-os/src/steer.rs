//! To which of several sockets at one address a client goes: a small program that the kernel runs for each that arrives.
//!
//! SO_REUSEPORT and SO_ATTACH_REUSEPORT_CBPF in socket(7); Documentation/networking/filter.rst of the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::{check, fault};

/// One step of such a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The number of the processor that the client has arrived at, from here on.
    LoadProcessor,
    /// Goes to this socket, counted from 0 in the order in which they began to listen, if the number is this.
    IfEqual {
        /// The number.
        number: u32,
        /// The socket.
        socket: u32,
    },
    /// The number is the rest of its division by this, from here on.
    Remainder(u32),
    /// Goes to the socket of this number.
    Go,
}

/// Steers clients among the sockets that share the address of this one. The kernel spreads them by a hash of both ends
/// where the program says a socket that there is not.
///
/// # Errors
/// EINVAL for a program that does not end in [`Step::Go`]; ENOPROTOOPT where the kernel has none of this.
///
/// # Panics
/// When there are more steps than a program may have: 2000.
pub fn steer(socket: impl AsFd, steps: &[Step]) -> io::Result<()> {
    assert!(steps.len() <= 2000, "a program has 4096 instructions at most");
    let filters: Vec<_> = steps.iter().flat_map(|step| instructions(*step)).collect();
    let program =
        libc::sock_fprog { len: filters.len() as libc::c_ushort, filter: filters.as_ptr().cast_mut() };
    fault::point("setsockopt")?;
    let (value, length) = ((&raw const program).cast(), size_of::<libc::sock_fprog>() as libc::socklen_t);
    let (fd, option) = (socket.as_fd().as_raw_fd(), libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: `value` is to a live `sock_fprog` of `length` bytes, which names `len` live instructions that the kernel only
    // reads (setsockopt(2)).
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, length) }).map(drop)
}

fn instructions(step: Step) -> Vec<libc::sock_filter> {
    /// SKF_AD_OFF + SKF_AD_CPU of linux/filter.h.
    const PROCESSOR: u32 = -0x1000_i32 as u32 + 36;
    let of = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    match step {
        Step::LoadProcessor => vec![of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, PROCESSOR)],
        Step::IfEqual { number, socket } => vec![
            // Otherwise over the next one.
            of(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
            of(libc::BPF_RET | libc::BPF_K, 0, socket),
        ],
        Step::Remainder(by) => vec![of(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, by)],
        Step::Go => vec![of(libc::BPF_RET | libc::BPF_A, 0, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Processors;
    use crate::socket::{self, Addr, IntOption, Kind};
    use std::net::TcpStream;

    /// Sockets that share one address.
    fn sockets(count: usize) -> (Vec<std::os::fd::OwnedFd>, std::net::SocketAddr) {
        let mut at: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open = |at: &std::net::SocketAddr| {
            let socket = socket::open(&Addr::Inet(*at), Kind::Stream).unwrap();
            socket::set_int(&socket, IntOption::REUSE_PORT, 1).unwrap();
            socket::bind(&socket, &Addr::Inet(*at)).unwrap();
            socket::listen(&socket, 100).unwrap();
            socket
        };
        let mut all = vec![open(&at)];
        if let Ok(Addr::Inet(bound)) = socket::local_addr(&all[0]) {
            at = bound;
        }
        (1..count).for_each(|_| all.push(open(&at)));
        (all, at)
    }

    fn arrived(socket: &std::os::fd::OwnedFd) -> usize {
        std::iter::from_fn(|| socket::accept(socket).ok()).count()
    }

    #[test]
    fn clients_go_where_the_program_says() {
        let (all, at) = sockets(3);
        let steps =
            [Step::LoadProcessor, Step::Remainder(1), Step::IfEqual { number: 0, socket: 2 }, Step::Go];
        steer(&all[0], &steps).unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
        assert_eq!(all.iter().map(arrived).collect::<Vec<_>>(), [0, 0, clients.len()]);
    }

    #[test]
    fn clients_go_to_the_socket_of_the_processor_that_they_arrive_at() {
        let before = Processors::own().unwrap();
        let numbers: Vec<_> = before.numbers().collect();
        let (all, at) = sockets(numbers.len());
        let mut steps = vec![Step::LoadProcessor];
        steps.extend(
            numbers
                .iter()
                .enumerate()
                .map(|(socket, number)| Step::IfEqual { number: *number as u32, socket: socket as u32 }),
        );
        steer(&all[0], &[steps, vec![Step::Go]].concat()).unwrap();
        for (socket, number) in numbers.iter().enumerate() {
            Processors::one(*number).run_on().unwrap();
            let _clients: Vec<_> = (0..10).map(|_| TcpStream::connect(at).unwrap()).collect();
            assert_eq!(arrived(&all[socket]), 10, "on processor {number}");
        }
        before.run_on().unwrap();
    }

    #[test]
    fn a_program_without_an_end_is_refused() {
        let (all, _) = sockets(1);
        assert!(steer(&all[0], &[Step::LoadProcessor]).is_err());
    }
}
