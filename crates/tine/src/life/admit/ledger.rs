//! What is done to admission, as data: a record for each call that changes it, of a fixed number of words.
//!
//! Admission is pure, so whoever carries out the same records in the same order has the same state. Pure too: no clock, no
//! memory shared with anybody. A client is recorded as far as admission looks at it: its address, its user, its machine. What
//! a record does not say has to be zero, so that a word that was damaged or written by another version is seen.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tine_os::identity::Credentials;
use tine_os::ring::{Entry, WORDS};
use tine_os::socket::Addr;

use super::{Admit, Fault, Reason, Rules, Source, Ticket, Verdict};
use crate::peer::Peer;

/// What was done, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Whose seat at the log it is.
    pub seat: u8,
    /// Nanoseconds since a time that all agree on.
    pub now: u64,
    pub op: Op,
}

/// What was done: a call of [`Admit`], with the name of that call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Arrives {
        ticket: Ticket,
        client: Client,
        chance: u32,
    },
    TurnsAway {
        chance: u32,
    },
    ArrivesNameless {
        ticket: Ticket,
    },
    /// Judged by the rules of this number.
    IsNamed {
        ticket: Ticket,
        client: Client,
        rules: u64,
    },
    IsOwn {
        client: Client,
        rules: u64,
    },
    NextWaiting,
    NextShed,
    GivesUp(Ticket),
    Closes(Ticket),
    Leaves(Ticket),
    Earns {
        client: Client,
        fault: Fault,
    },
    Penalise {
        source: Source,
        time: Duration,
    },
    Forgive(Source),
    Count(Reason),
    /// The rules of this number hold from now on.
    SetRules(u64),
    /// No call: the slot's client has this process.
    Bears {
        ticket: Ticket,
        pid: u32,
    },
}

/// A client, as admission sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    V4(Ipv4Addr, u16),
    V6(Ipv6Addr, u16),
    User(u32),
    Machine { cid: u32, port: u32 },
    Nobody,
}

/// What a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Verdict(Verdict),
    TurnedAway(Option<Reason>),
    Turn(Option<(Ticket, Verdict)>),
    Shed(Option<Ticket>),
    Waited(bool),
    Left(Option<Source>),
    KeptOut(Option<Duration>),
}

impl Op {
    /// Makes the call. `rules`: those of a number, which are the same whoever asks.
    pub(super) fn carry_out(
        &self,
        admit: &mut Admit,
        now: Instant,
        rules: impl FnOnce(u64) -> Rules,
    ) -> Answer {
        match *self {
            Op::Arrives { ticket, client, chance } => {
                Answer::Verdict(admit.arrives(ticket, &client.peer(), now, chance))
            }
            Op::TurnsAway { chance } => Answer::TurnedAway(admit.turns_away(chance)),
            Op::ArrivesNameless { ticket } => {
                admit.arrives_nameless(ticket, now);
                Answer::Nothing
            }
            Op::IsNamed { ticket, client, rules: number } => Answer::Verdict(
                admit.judged_by(rules(number), |admit| admit.is_named(ticket, &client.peer(), now)),
            ),
            Op::IsOwn { client, rules: number } => {
                Answer::Verdict(admit.judged_by(rules(number), |admit| admit.is_own(&client.peer())))
            }
            Op::NextWaiting => Answer::Turn(admit.next_waiting(now)),
            Op::NextShed => Answer::Shed(admit.next_shed(now)),
            Op::GivesUp(ticket) => Answer::Waited(admit.gives_up(ticket, now)),
            Op::Closes(ticket) => {
                admit.closes(ticket, now);
                Answer::Nothing
            }
            Op::Leaves(ticket) => Answer::Left(admit.leaves(ticket, now)),
            Op::Earns { client, fault } => Answer::KeptOut(admit.earns(&client.peer(), fault, now)),
            Op::Penalise { source, time } => Answer::KeptOut(admit.penalise(source, time, now)),
            Op::Forgive(source) => {
                admit.forgive(source, now);
                Answer::Nothing
            }
            Op::Count(why) => Answer::Verdict(admit.count(why)),
            Op::SetRules(number) => {
                admit.set_rules(rules(number));
                Answer::Nothing
            }
            Op::Bears { .. } => Answer::Nothing,
        }
    }
}

impl Client {
    pub(super) fn of(peer: &Peer) -> Client {
        match (&peer.addr, &peer.credentials) {
            (Addr::Inet(SocketAddr::V4(addr)), _) => Client::V4(*addr.ip(), addr.port()),
            (Addr::Inet(SocketAddr::V6(addr)), _) => Client::V6(*addr.ip(), addr.port()),
            (Addr::Vsock { cid, port }, _) => Client::Machine { cid: *cid, port: *port },
            (_, Some(who)) => Client::User(who.uid),
            _ => Client::Nobody,
        }
    }

    pub(super) fn peer(self) -> Peer {
        let addr = match self {
            Client::V4(ip, port) => Addr::Inet((ip, port).into()),
            Client::V6(ip, port) => Addr::Inet((ip, port).into()),
            Client::Machine { cid, port } => Addr::Vsock { cid, port },
            Client::User(_) | Client::Nobody => Addr::Unnamed,
        };
        let credentials = match self {
            Client::User(uid) => Some(Credentials { pid: 0, uid, gid: 0 }),
            _ => None,
        };
        Peer { addr, credentials }
    }
}

/// The words of a record, by what they are for. What is not used is zero.
#[derive(Clone, Copy, Default)]
struct Words {
    /// Which call.
    tag: u8,
    seat: u8,
    /// Of what kind the client or the source is.
    kind: u8,
    /// Chance, a fault, a reason, a process.
    small: u32,
    now: u64,
    ticket: Ticket,
    port: u32,
    /// An address, a user, a machine.
    who: u128,
    /// A number of rules, nanoseconds.
    large: u64,
}

impl Words {
    fn pack(self) -> Entry {
        let Words { tag, seat, kind, small, now, ticket, port, who, large } = self;
        let first = u64::from(tag) | u64::from(seat) << 8 | u64::from(kind) << 16 | u64::from(small) << 32;
        [first, now, ticket, port.into(), who as u64, (who >> 64) as u64, large, 0]
    }

    /// Whatever is not zero and has no meaning is lost, which is seen by packing it again.
    fn unpack(entry: &Entry) -> Words {
        let [first, now, ticket, port, low, high, large, _] = *entry;
        Words {
            tag: first as u8,
            seat: (first >> 8) as u8,
            kind: (first >> 16) as u8,
            small: (first >> 32) as u32,
            now,
            ticket,
            port: port as u32,
            who: u128::from(high) << 64 | u128::from(low),
            large,
        }
    }

    fn with_client(self, client: Client) -> Words {
        let (kind, who, port) = match client {
            Client::V4(ip, port) => (1, ip.to_bits().into(), port.into()),
            Client::V6(ip, port) => (2, ip.to_bits(), port.into()),
            Client::User(uid) => (3, uid.into(), 0),
            Client::Machine { cid, port } => (4, cid.into(), port),
            Client::Nobody => (5, 0, 0),
        };
        Words { kind, who, port, ..self }
    }

    fn client(&self) -> Option<Client> {
        Some(match self.kind {
            1 => Client::V4(Ipv4Addr::from_bits(self.who as u32), self.port as u16),
            2 => Client::V6(Ipv6Addr::from_bits(self.who), self.port as u16),
            3 => Client::User(self.who as u32),
            4 => Client::Machine { cid: self.who as u32, port: self.port },
            5 => Client::Nobody,
            _ => return None,
        })
    }

    fn with_source(self, source: Source) -> Words {
        let (kind, who) = match source {
            Source::V4(v4) => (1, v4.to_bits().into()),
            Source::V6(v6) => (2, v6.to_bits()),
            Source::User(uid) => (3, uid.into()),
            Source::Machine(cid) => (4, cid.into()),
            Source::Unknown => (5, 0),
        };
        Words { kind, who, ..self }
    }

    fn source(&self) -> Option<Source> {
        Some(match self.kind {
            1 => Source::V4(Ipv4Addr::from_bits(self.who as u32)),
            2 => Source::V6(Ipv6Addr::from_bits(self.who)),
            3 => Source::User(self.who as u32),
            4 => Source::Machine(self.who as u32),
            5 => Source::Unknown,
            _ => return None,
        })
    }

    fn fault(&self) -> Option<Fault> {
        Some(match self.small & 0xff {
            0 => Fault::Crash,
            1 => Fault::Signal,
            2 => Fault::Exit((self.small >> 8) as u8),
            3 => Fault::Timeout,
            4 => Fault::NoBytes,
            5 => Fault::Refused,
            _ => return None,
        })
    }
}

fn fault_number(fault: Fault) -> u32 {
    match fault {
        Fault::Crash => 0,
        Fault::Signal => 1,
        Fault::Exit(status) => 2 | u32::from(status) << 8,
        Fault::Timeout => 3,
        Fault::NoBytes => 4,
        Fault::Refused => 5,
    }
}

/// As far as a record goes, which is 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Record {
    pub(super) fn encode(&self) -> Entry {
        let words = Words { seat: self.seat, now: self.now, ..Words::default() };
        let tag = |tag: u8| Words { tag, ..words };
        let words = match self.op {
            Op::Arrives { ticket, client, chance } => {
                Words { ticket, small: chance, ..tag(1) }.with_client(client)
            }
            Op::TurnsAway { chance } => Words { small: chance, ..tag(2) },
            Op::ArrivesNameless { ticket } => Words { ticket, ..tag(3) },
            Op::IsNamed { ticket, client, rules } => {
                Words { ticket, large: rules, ..tag(4) }.with_client(client)
            }
            Op::IsOwn { client, rules } => Words { large: rules, ..tag(5) }.with_client(client),
            Op::NextWaiting => tag(6),
            Op::NextShed => tag(7),
            Op::GivesUp(ticket) => Words { ticket, ..tag(8) },
            Op::Closes(ticket) => Words { ticket, ..tag(9) },
            Op::Leaves(ticket) => Words { ticket, ..tag(10) },
            Op::Earns { client, fault } => {
                Words { small: fault_number(fault), ..tag(11) }.with_client(client)
            }
            Op::Penalise { source, time } => Words { large: nanos(time), ..tag(12) }.with_source(source),
            Op::Forgive(source) => tag(13).with_source(source),
            Op::Count(why) => Words { small: why as u32, ..tag(14) },
            Op::SetRules(number) => Words { large: number, ..tag(15) },
            Op::Bears { ticket, pid } => Words { ticket, small: pid, ..tag(16) },
        };
        words.pack()
    }

    /// `None` for anything that no record is encoded as.
    pub(super) fn decode(entry: &[u64; WORDS]) -> Option<Record> {
        let words = Words::unpack(entry);
        let Words { seat, now, ticket, small, large, .. } = words;
        let op = match words.tag {
            1 => Op::Arrives { ticket, client: words.client()?, chance: small },
            2 => Op::TurnsAway { chance: small },
            3 => Op::ArrivesNameless { ticket },
            4 => Op::IsNamed { ticket, client: words.client()?, rules: large },
            5 => Op::IsOwn { client: words.client()?, rules: large },
            6 => Op::NextWaiting,
            7 => Op::NextShed,
            8 => Op::GivesUp(ticket),
            9 => Op::Closes(ticket),
            10 => Op::Leaves(ticket),
            11 => Op::Earns { client: words.client()?, fault: words.fault()? },
            12 => Op::Penalise { source: words.source()?, time: Duration::from_nanos(large) },
            13 => Op::Forgive(words.source()?),
            14 => Op::Count(*Reason::ALL.get(small as usize)?),
            15 => Op::SetRules(large),
            16 => Op::Bears { ticket, pid: small },
            _ => return None,
        };
        let record = Record { seat, now, op };
        (record.encode() == *entry).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::life::admit::{Mask, Rule, Who};

    fn client() -> impl Strategy<Value = Client> {
        prop_oneof![
            (any::<u32>(), any::<u16>()).prop_map(|(bits, port)| Client::V4(Ipv4Addr::from_bits(bits), port)),
            (any::<u128>(), any::<u16>())
                .prop_map(|(bits, port)| Client::V6(Ipv6Addr::from_bits(bits), port)),
            (any::<u32>(), any::<u16>())
                .prop_map(|(bits, port)| Client::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped(), port)),
            any::<u32>().prop_map(Client::User),
            (any::<u32>(), any::<u32>()).prop_map(|(cid, port)| Client::Machine { cid, port }),
            Just(Client::Nobody),
        ]
    }

    fn source() -> impl Strategy<Value = Source> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Source::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| Source::V6(Ipv6Addr::from_bits(bits))),
            any::<u32>().prop_map(Source::User),
            any::<u32>().prop_map(Source::Machine),
            Just(Source::Unknown),
        ]
    }

    fn fault() -> impl Strategy<Value = Fault> {
        prop_oneof![
            any::<u8>().prop_map(Fault::Exit),
            prop::sample::select(vec![
                Fault::Crash,
                Fault::Signal,
                Fault::Timeout,
                Fault::NoBytes,
                Fault::Refused
            ]),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        let number = any::<u64>;
        prop_oneof![
            (number(), client(), any::<u32>()).prop_map(|(ticket, client, chance)| Op::Arrives {
                ticket,
                client,
                chance
            }),
            any::<u32>().prop_map(|chance| Op::TurnsAway { chance }),
            number().prop_map(|ticket| Op::ArrivesNameless { ticket }),
            (number(), client(), number()).prop_map(|(ticket, client, rules)| Op::IsNamed {
                ticket,
                client,
                rules
            }),
            (client(), number()).prop_map(|(client, rules)| Op::IsOwn { client, rules }),
            Just(Op::NextWaiting),
            Just(Op::NextShed),
            number().prop_map(Op::GivesUp),
            number().prop_map(Op::Closes),
            number().prop_map(Op::Leaves),
            (client(), fault()).prop_map(|(client, fault)| Op::Earns { client, fault }),
            (source(), number())
                .prop_map(|(source, time)| Op::Penalise { source, time: Duration::from_nanos(time) }),
            source().prop_map(Op::Forgive),
            prop::sample::select(Reason::ALL.to_vec()).prop_map(Op::Count),
            number().prop_map(Op::SetRules),
            (number(), any::<u32>()).prop_map(|(ticket, pid)| Op::Bears { ticket, pid }),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        (any::<u8>(), any::<u64>(), op()).prop_map(|(seat, now, op)| Record { seat, now, op })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_record_is_read_as_what_was_written(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        /// Any change of a bit is another record or none: nothing of a word is overlooked.
        #[test]
        fn no_bit_of_a_record_is_without_meaning(record in record(), word in 0..WORDS, bit in 0..64) {
            let mut entry = record.encode();
            entry[word] ^= 1_u64 << bit;
            let read = Record::decode(&entry);
            prop_assert!(read.as_ref() != Some(&record));
            prop_assert!(read.is_none_or(|read| read.encode() == entry));
        }

        #[test]
        fn words_that_nobody_wrote_are_no_record_or_are_written_the_same(entry in any::<[u64; WORDS]>(), tag in 0..20_u64) {
            let entry = [entry[0] & !0xff | tag, entry[1], entry[2], entry[3], entry[4], entry[5], entry[6], entry[7]];
            if let Some(read) = Record::decode(&entry) {
                prop_assert_eq!(read.encode(), entry);
            }
        }

        /// Admission looks at nothing of a client that is not recorded.
        #[test]
        fn a_client_is_the_same_to_admission_as_its_record(client in client(), v4 in 0..=32_u8, v6 in 0..=128_u8, named in any::<bool>()) {
            let recorded = client.peer();
            let mut peer = recorded.clone();
            if let Some(who) = &mut peer.credentials {
                (who.pid, who.gid) = (77, 78);
            }
            if matches!(peer.addr, Addr::Unnamed) && named {
                peer.addr = Addr::Path("/run/client".into());
            }
            prop_assert_eq!(Client::of(&peer), client);
            let mask = Mask { v4, v6 };
            prop_assert_eq!(Source::of(&peer, mask), Source::of(&recorded, mask));
            prop_assert_eq!(peer.ip(), recorded.ip());
            let rules = rules_about(&peer);
            prop_assert_eq!(rules.of(&peer).map(|(id, _)| id), rules.of(&recorded).map(|(id, _)| id));
        }
    }

    fn rules_about(peer: &Peer) -> Rules {
        let mut rules = Rules::default();
        rules.add(Who::All, Rule::allow()).unwrap();
        rules.add(Who::Unix, Rule::deny()).unwrap();
        match (&peer.addr, peer.credentials) {
            (Addr::Inet(addr), _) => {
                let prefix = crate::life::admit::Prefix::around(addr.ip(), 20);
                rules.add(Who::Network(prefix), Rule::deny()).unwrap();
            }
            (Addr::Vsock { cid, .. }, _) => rules.add(Who::Machine(*cid), Rule::deny()).unwrap(),
            (_, Some(who)) => rules.add(Who::User(who.uid), Rule::allow()).unwrap(),
            _ => {}
        }
        rules
    }
}
