//! Descriptors passed through a Unix socket, with a few bytes beside them. SCM_RIGHTS in unix(7), sendmsg(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use crate::{check, fault};

/// The most descriptors that one message may carry: below the kernel's SCM_MAX_FD of 253.
pub const MOST: usize = 250;

/// Room for a control message of [`MOST`] descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 1024 + 64]);

/// Sends `bytes` with `fds`; never waits.
///
/// # Errors
/// EAGAIN when the queue is full, ETOOMANYREFS when too many descriptors of this user are in flight.
///
/// # Panics
/// When there are more than [`MOST`] descriptors or no byte.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(fds.len() <= MOST && !bytes.is_empty(), "a message has a byte, and at most {MOST} descriptors");
    fault::point("sendmsg")?;
    let mut control = Control([0; 1024 + 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = header(&mut part, &mut control);
    let payload = size_of_val(fds) as u32;
    // SAFETY: a plain computation on a number (cmsg(3)).
    message.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as usize;
    if fds.is_empty() {
        message.msg_controllen = 0;
    } else {
        // SAFETY: `message` names `control`, which is aligned and has room for one header.
        let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
        // SAFETY: a plain computation on a number (cmsg(3)).
        let length = unsafe { libc::CMSG_LEN(payload) } as usize;
        let head =
            libc::cmsghdr { cmsg_len: length, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        // SAFETY: `first` points into `control`, which is not otherwise borrowed.
        unsafe { first.write(head) };
        // SAFETY: as above; the data begins right behind the header.
        let data = unsafe { libc::CMSG_DATA(first) };
        // SAFETY: `control` has room for MOST descriptors behind one header, and there are no more (asserted);
        // a borrowed descriptor has the layout of the number that it is.
        unsafe { ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), data, payload as usize) };
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` names one part and a control area, all alive here, with their true lengths.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) };
    check(sent as libc::c_int).map(drop)
}

/// Receives one message into `bytes`, its descriptors (close-on-exec) into `fds`; never waits. Gives the number of bytes.
///
/// # Errors
/// EAGAIN when there is none.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    receive_as(socket, bytes, fds, libc::MSG_DONTWAIT)
}

/// As [`receive`], and waits for it. No byte is the end: nobody has the other side any more.
///
/// # Errors
/// What recvmsg(2) says; an interruption is no error.
pub fn await_one(socket: impl AsFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    loop {
        match receive_as(&socket, bytes, fds, 0) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// As [`receive`], and waits for it so long. No byte is the end.
///
/// # Errors
/// `WouldBlock` when nothing has come; what poll(2) and recvmsg(2) say.
pub fn receive_within(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    patience: Duration,
) -> io::Result<usize> {
    let mut ready = Vec::new();
    crate::fd::wait_readable(&[socket.as_fd()], Some(patience), &mut ready)?;
    receive(socket, bytes, fds)
}

fn receive_as(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    how: libc::c_int,
) -> io::Result<usize> {
    fault::point("recvmsg")?;
    let mut control = Control([0; 1024 + 64]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = header(&mut part, &mut control);
    let flags = how | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: `message` names one part and a control area, all alive and writable here, with their true lengths.
    let got = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, flags) };
    let got = check(got as libc::c_int)? as usize;
    // SAFETY: the kernel has filled `message` in; its control area is still alive.
    let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if first.is_null() {
        return Ok(got);
    }
    // SAFETY: not null, so it points to a header inside `control` (cmsg(3)).
    let head = unsafe { first.read() };
    if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
        // SAFETY: as above; the data begins right behind the header.
        let data = unsafe { libc::CMSG_DATA(first) }.cast::<libc::c_int>();
        // SAFETY: a plain computation on a number (cmsg(3)).
        let count = (head.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize) / size_of::<libc::c_int>();
        for i in 0..count {
            // SAFETY: the kernel wrote `count` descriptors from `data` on, inside `control`.
            let place = unsafe { data.add(i) };
            // SAFETY: as above; control data need not be aligned for its type (cmsg(3)).
            let number = unsafe { place.read_unaligned() };
            // SAFETY: the kernel has just installed this descriptor for us; nobody else knows it.
            fds.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(got)
}

fn header(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: part,
        msg_iovlen: 1,
        msg_control: control.0.as_mut_ptr().cast(),
        msg_controllen: control.0.len(),
        msg_flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_in_order_with_their_bytes() {
        let (here, there) = crate::socket::pair(crate::socket::Kind::Packet).unwrap();
        let (mut a, b) = UnixStream::pair().unwrap();
        send(&here, b"two", &[b.as_fd(), b.as_fd()]).unwrap();
        drop(b);
        let (mut bytes, mut fds) = ([0; 8], Vec::new());
        assert_eq!(receive(&there, &mut bytes, &mut fds).unwrap(), 3);
        assert_eq!((&bytes[..3], fds.len()), (&b"two"[..], 2));
        a.write_all(b"x").unwrap();
        let mut b = UnixStream::from(fds.pop().unwrap());
        let mut got = [0];
        b.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"x");
    }

    #[test]
    fn the_most_descriptors_of_one_message_pass_and_a_message_may_have_none() {
        let (here, there) = crate::socket::pair(crate::socket::Kind::Packet).unwrap();
        send(&here, b"m", &[here.as_fd(); MOST]).unwrap();
        send(&here, b"n", &[]).unwrap();
        let mut fds = Vec::new();
        receive(&there, &mut [0; 1], &mut fds).unwrap();
        assert_eq!(fds.len(), MOST);
        fds.clear();
        receive(&there, &mut [0; 1], &mut fds).unwrap();
        assert_eq!(fds.len(), 0);
    }
}
