//! The attempts: what each needs, and what must come of it without confinement, `guarded` and `sealed`.

/// What must come of an attempt when nothing confines it, which shows that it is one.
#[derive(Debug, Clone, Copy)]
pub enum Open {
    /// It succeeds.
    Succeeds,
    /// It takes root: without, the kernel says no, confined or not.
    AsRoot,
    /// It succeeds where the kernel has what it is about, and is void elsewhere; this is what some kernels lack.
    MayBeVoid(&'static str),
    /// The child contract alone stops it, and this is how. A control shows that it works where there is something to find.
    Contract(&'static str),
    /// It succeeds unless the machine is set up so, as some are, that it is blocked, and this is how.
    MayBeRefused(&'static str),
}

/// What must come of an attempt under a profile.
#[derive(Debug, Clone, Copy)]
pub enum Shut {
    /// It is blocked.
    Blocked,
    /// It may succeed, for this reason.
    May(&'static str),
}

/// How the test knows that what the attempt says is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// What was planted is what it has read, which the program compares itself.
    Word,
    /// The victim says that it got this signal.
    Hears(&'static str),
    /// The victim is dead.
    VictimDies,
    /// The victim is stopped.
    VictimStops,
    /// The victim's status has this in it.
    VictimHas(&'static str),
    /// The master's log has a line that begins so.
    MasterSays(&'static str),
    /// A process of the same user's that is nothing of the server's is dead.
    StrangerDies,
    /// Somebody lives on after the connection.
    Outlives,
    /// It lives on after its master was killed, and its sibling does not.
    OutlivesMaster,
}

/// In which steps an attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a client's program, with a sibling beside it.
    Client,
    /// By one client's program, and when that has ended by the next one's.
    TwoClients,
    /// By a program outside, and then by a client's.
    OutsideFirst,
    /// By a client's program, with the word that its sibling's client has said not read by the sibling.
    WordWaits,
    /// By a client's program, with a terminal that another session has.
    OwnedTerminal,
    /// By a client's program, born when its server can have few more descriptors.
    FewDescriptors,
    /// By a client's program, born when its server can have little more memory.
    LittleMemory,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub name: &'static str,
    pub way: Way,
    pub proof: Proof,
    /// More arguments for the server.
    pub flags: &'static [&'static str],
    pub root: Open,
    pub nobody: Open,
    pub guarded: Shut,
    /// With a user of each child's own, as where tine is root and names none.
    pub sealed: Shut,
    /// With one user for all children.
    pub sealed_alike: Shut,
}

impl Attempt {
    const fn new(name: &'static str) -> Attempt {
        let (way, proof, open, shut) = (Way::Client, Proof::Word, Open::Succeeds, Shut::Blocked);
        Attempt {
            name,
            way,
            proof,
            flags: &[],
            root: open,
            nobody: open,
            guarded: shut,
            sealed: shut,
            sealed_alike: shut,
        }
    }

    const fn proof(self, proof: Proof) -> Attempt {
        Attempt { proof, ..self }
    }

    const fn way(self, way: Way) -> Attempt {
        Attempt { way, ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Attempt {
        Attempt { flags, ..self }
    }

    const fn as_root(self) -> Attempt {
        Attempt { nobody: Open::AsRoot, ..self }
    }

    /// May be void, and takes root where it is not.
    const fn as_root_if_any(self, lacks: &'static str) -> Attempt {
        Attempt { root: Open::MayBeVoid(lacks), nobody: Open::AsRoot, ..self }
    }

    const fn may_be_void(self, lacks: &'static str) -> Attempt {
        Attempt { root: Open::MayBeVoid(lacks), nobody: Open::MayBeVoid(lacks), ..self }
    }

    const fn contract(self, how: &'static str) -> Attempt {
        Attempt { root: Open::Contract(how), nobody: Open::Contract(how), ..self }
    }

    const fn may_be_refused(self, how: &'static str) -> Attempt {
        Attempt { root: Open::MayBeRefused(how), nobody: Open::MayBeRefused(how), ..self }
    }

    const fn nobody_may_be_refused(self, how: &'static str) -> Attempt {
        Attempt { nobody: Open::MayBeRefused(how), ..self }
    }

    /// Whether `--read` closes it under `guarded`.
    pub fn is_reading(&self) -> bool {
        matches!(self.guarded, Shut::May(READABLE))
    }

    const fn guarded_may(self, why: &'static str) -> Attempt {
        Attempt { guarded: Shut::May(why), ..self }
    }

    /// Where all children have one user, under both profiles.
    const fn alike_may(self, why: &'static str) -> Attempt {
        Attempt { guarded: Shut::May(why), sealed_alike: Shut::May(why), ..self }
    }

    /// Under both profiles, whoever they are.
    const fn may(self, why: &'static str) -> Attempt {
        Attempt { sealed: Shut::May(why), ..self.alike_may(why) }
    }
}

// Why something may succeed.
const PUBLIC: &str =
    "guarded has no pid namespace: names, arguments and numbers of processes are what anybody may see";
const READABLE: &str = "guarded lets be read what its user may read, until --read names what that is; root's programs are another user's with --user";
const STAT: &str =
    "Landlock keeps from what is in files, not from their names and sizes; sealed does not show them at all";
const LOG: &str = "the log is a pipe, whose owner may open it anew; sealed has another user, and so has --user; --stderr null closes it";
const LOGGED: &str = "standard error is the log, of which a client may fill as much as it likes; tine keeps no more than fits a pipe, and --stderr null closes it";
const ENDS: &str = "it is the program's own affair, and ends with its connection";
const CHANNEL: &str = "side channels are out of scope, and clocks read this counter";
const PROCESSES: &str = "RLIMIT_NPROC counts all processes of a user: 64 where sealed has one for each child; --pids bounds it in any case, by control groups of version 2";
const PROCESSOR: &str = "the kernel shares processors out, so a neighbour is slowed down and not stopped; --cpu bounds it, by control groups of version 2";
const MEMORY: &str = "--memory bounds all that a connection has, by control groups of version 2; --rlimit as= and fsize= bound each process and each file only";
const PIPES: &str = "fs.pipe-user-pages-soft bounds it for each user, at 64 MiB unless it was changed; --memory counts it, by control groups of version 2";
const DESCRIPTORS: &str =
    "RLIMIT_NOFILE bounds it: 4096 in the child contract, 256 in sealed; --rlimit nofile= makes it less";
const QUEUED: &str = "RLIMIT_SIGPENDING bounds what a user has of them, so a lower one would be a neighbour's too; 1024 in sealed where each child has a user of its own";
const WATCHES: &str = "fs.inotify.max_user_instances bounds it for each user; sealed has one for each child where tine is root and --user names none";
const LOCKS: &str = "no limit counts locks (setrlimit(2)); --memory does, by control groups of version 2";
const ORPHAN: &str = "with --trees subreaper nothing but this signal ends it, and a fork is without it in any case; with control groups somebody waits for the master's death, and in sealed the first process of the namespace dies of it";
const SEARCHED: &str = "nothing but 0, 1 and 2 is open in a child";

/// All attempts, in the order of the catalogue.
pub fn attempts() -> Vec<Attempt> {
    use Proof::*;
    let a = Attempt::new;
    vec![
        // S1 to S6: processes
        a("S1.attach-sibling"),
        a("S1.seize-sibling"),
        a("S1.master").as_root(),
        a("S1.stranger"),
        a("S2.readv"),
        a("S2.writev").proof(VictimHas("page=changed")),
        a("S2.madvise").nobody_may_be_refused("it takes CAP_SYS_NICE too"),
        a("S3.mem"),
        a("S3.mem-write").proof(VictimHas("page=changed")),
        a("S3.environ"),
        a("S3.cmdline").guarded_may(PUBLIC),
        a("S3.maps"),
        a("S3.fd"),
        a("S3.cwd"),
        a("S3.exe"),
        a("S3.root"),
        a("S3.own-memory").contract("programs are executed: nothing of the master's memory is theirs"),
        a("S4.sibling-socket").way(Way::WordWaits),
        a("S4.master-listener").as_root(),
        a("S4.kcmp"),
        a("S5.kill-sibling").proof(Hears("USR1")),
        a("S5.kill9-sibling").proof(VictimDies),
        a("S5.stop-sibling").proof(VictimStops),
        a("S5.kill-group").proof(Hears("USR1")),
        a("S5.tgkill").proof(Hears("USR1")),
        a("S5.sigqueue").proof(Hears("USR1")),
        a("S5.pidfd-signal").proof(Hears("USR1")),
        a("S5.sigio").proof(Hears("USR1")),
        a("S5.kill-master").as_root().proof(MasterSays("status ")),
        a("S5.kill-stranger").proof(StrangerDies),
        // Not kill(-1): the kernel answers 0 to it also when it reached nobody, and a signal that is one would reach all.
        a("S5.prlimit").proof(VictimHas("files=77")),
        a("S5.nice").proof(VictimHas("nice=13")),
        a("S5.affinity").proof(VictimHas("processors=1")),
        a("S5.oom-score"),
        a("S6.list").guarded_may(PUBLIC),
        a("S6.status").guarded_may(PUBLIC),
        a("S6.pidfd").guarded_may(PUBLIC),
        a("S6.session").guarded_may(PUBLIC),
        a("S6.probe"),
        a("S6.connections").guarded_may("guarded has no network namespace: /proc/net is public"),
        // S7, S8
        a("S7.read-sibling"),
        a("S7.add-key"),
        a("S7.request-key"),
        a("S7.session-to-parent"),
        a("S7.join-session"),
        a("S8.open"),
        a("S8.connect"),
        // S9: namespaces and mounts
        a("S9.userns"),
        a("S9.clone-userns"),
        a("S9.clone3-userns"),
        a("S9.userns-mount"),
        a("S9.unshare-mnt").as_root(),
        a("S9.unshare-net").as_root(),
        a("S9.unshare-pid").as_root(),
        a("S9.unshare-ipc").as_root(),
        a("S9.unshare-uts").as_root(),
        a("S9.unshare-cgroup").as_root(),
        a("S9.unshare-time").as_root(),
        a("S9.setns").as_root(),
        a("S9.setns-pidfd").as_root(),
        a("S9.mount").as_root(),
        a("S9.bind-mount").as_root(),
        a("S9.umount").as_root(),
        a("S9.fsopen").as_root(),
        a("S9.open-tree").as_root(),
        a("S9.pivot-root").as_root(),
        a("S9.pivot-root-asked").as_root(),
        a("S9.chroot").as_root(),
        a("S9.mknod").as_root(),
        a("S9.hostname").as_root(),
        // S10: the terminal
        a("S10.tiocsti"),
        a("S10.tiocsti-high-bits"),
        a("S10.tioclinux"),
        a("S10.take"),
        a("S10.steal").as_root().way(Way::OwnedTerminal),
        a("S10.write"),
        // S11, S12: privileges
        a("S11.setuid-program"),
        a("S11.file-capabilities"),
        a("S11.ambient").as_root(),
        a("S11.use-capability").as_root(),
        a("S11.change-user").as_root(),
        a("S12.self-exe"),
        a("S12.sysctl").as_root(),
        a("S12.core-pattern").as_root(),
        a("S12.modprobe").as_root_if_any("modules"),
        a("S12.uevent-helper").as_root_if_any("CONFIG_UEVENT_HELPER"),
        a("S12.release-agent").as_root_if_any("control groups of version 1"),
        a("S12.sysrq").as_root_if_any("CONFIG_MAGIC_SYSRQ"),
        a("S12.sysfs").as_root_if_any("transparent huge pages"),
        // S13: calls and sockets that no service needs
        a("S13.raw-socket").as_root(),
        a("S13.packet-socket").as_root(),
        a("S13.netlink-route"),
        a("S13.netlink-diag"),
        a("S13.netlink-uevent"),
        a("S13.bpf-map").as_root(),
        a("S13.bpf-program").as_root(),
        a("S13.perf"),
        a("S13.perf-sibling"),
        a("S13.userfaultfd"),
        a("S13.kexec").as_root_if_any("CONFIG_KEXEC"),
        a("S13.kexec-file").as_root_if_any("CONFIG_KEXEC_FILE"),
        a("S13.init-module").as_root_if_any("modules"),
        a("S13.finit-module").as_root_if_any("modules"),
        a("S13.delete-module").as_root_if_any("modules"),
        a("S13.reboot").as_root(),
        a("S13.swapon").as_root(),
        a("S13.acct").as_root_if_any("CONFIG_BSD_PROCESS_ACCT"),
        a("S13.fanotify").as_root(),
        a("S13.quotactl").may_be_void("CONFIG_QUOTA"),
        a("S13.syslog").as_root(),
        a("S13.ioperm").as_root_if_any("I/O ports"),
        a("S13.open-by-handle").as_root(),
        a("S13.seccomp-trace"),
        // S14, S15: the network, and sockets of this machine
        a("S14.tcp"),
        a("S14.tcp6").may_be_void("IPv6"),
        a("S14.mptcp").may_be_void("MPTCP"),
        a("S14.fastopen"),
        a("S14.udp"),
        a("S14.udplite").may_be_void("UDP-Lite"),
        a("S14.sctp").may_be_void("SCTP"),
        a("S14.dns"),
        a("S14.bind"),
        a("S14.listen-unbound"),
        a("S14.icmp").may_be_void("a group that may ping"),
        a("S14.client-connects"),
        a("S14.client-listens"),
        a("S15.path"),
        a("S15.abstract"),
        a("S15.abstract-datagram"),
        a("S15.listen"),
        a("S15.rights-in"),
        a("S15.rights-out"),
        // S16 to S18: families, numbers, personalities
        a("S16.vsock").may_be_void("AF_VSOCK"),
        a("S16.alg").may_be_void("AF_ALG"),
        a("S16.tipc").may_be_void("AF_TIPC"),
        a("S16.rds").may_be_void("AF_RDS"),
        a("S16.xdp").as_root_if_any("AF_XDP"),
        a("S16.key").as_root_if_any("AF_KEY"),
        a("S16.can").may_be_void("AF_CAN"),
        a("S16.kcm").may_be_void("AF_KCM"),
        a("S16.smc").may_be_void("AF_SMC"),
        a("S16.bluetooth").may_be_void("AF_BLUETOOTH"),
        a("S16.pppox").may_be_void("AF_PPPOX"),
        a("S17.int80-open").may_be_void("32-bit calls"),
        a("S17.int80-add-key").may_be_void("32-bit calls"),
        a("S17.int80-socket").may_be_void("32-bit calls"),
        a("S17.x32").may_be_void("x32 calls"),
        a("S18.personality"),
        a("S18.modify-ldt"),
        a("S18.tsc").may(CHANNEL),
        a("S18.tsc-off").may(ENDS),
        // S19: files
        a("S19.secret").as_root().guarded_may(READABLE),
        a("S19.decoy").guarded_may(READABLE),
        a("S19.other-tmp"),
        a("S19.list").guarded_may(READABLE),
        a("S19.stat").guarded_may(STAT),
        a("S19.log").as_root().guarded_may(LOG),
        a("S19.write"),
        a("S19.truncate"),
        a("S19.create"),
        a("S19.tmpfile"),
        a("S19.mkdir"),
        a("S19.symlink"),
        a("S19.hardlink"),
        a("S19.mkfifo"),
        a("S19.socket"),
        a("S19.unlink"),
        a("S19.rename"),
        a("S19.chmod"),
        a("S19.utime"),
        a("S19.setxattr").may_be_void("user attributes"),
        a("S19.lock").guarded_may(READABLE),
        a("S19.cgroup-leave").as_root_if_any("control groups of version 2"),
        a("S19.cgroup-make").as_root_if_any("control groups of version 2"),
        // S20 to S22: what the master has
        a("S20.find").contract(SEARCHED),
        a("S20.shutdown").contract(SEARCHED),
        a("S20.accept").contract(SEARCHED),
        a("S20.fcntl").contract(SEARCHED),
        a("S20.beside").as_root().flags(&["--acceptors", "2"]),
        a("S21.epoll").contract(SEARCHED),
        a("S21.signalfd").contract(SEARCHED),
        a("S21.timerfd").contract(SEARCHED),
        a("S21.eventfd").contract(SEARCHED),
        a("S21.memfd").contract(SEARCHED),
        a("S21.pidfd").contract(SEARCHED),
        a("S21.anything").contract(SEARCHED),
        a("S22.mapping").contract("programs are executed: nothing of the master's memory is theirs"),
        a("S22.truncate").contract(SEARCHED),
        // S23 to S28: resources
        a("S23.fork-bomb").alike_may(PROCESSES),
        a("S23.fork-storm").may(PROCESSOR),
        a("S24.memory").may(MEMORY),
        a("S24.memfd").may(MEMORY),
        a("S24.dev-shm"),
        a("S24.sysv"),
        a("S24.pipes").may(PIPES),
        a("S24.in-flight").guarded_may(DESCRIPTORS),
        a("S24.page-cache"),
        a("S25.descriptors").guarded_may(DESCRIPTORS),
        a("S25.raise-limit")
            .may_be_refused("it takes CAP_SYS_RESOURCE, which root may lack in a virtual machine"),
        a("S26.spin").may(PROCESSOR),
        a("S26.spins").may(PROCESSOR),
        a("S26.realtime").as_root(),
        a("S26.deadline").as_root(),
        a("S26.nice").as_root(),
        a("S26.ionice").as_root(),
        a("S26.mlock").as_root(),
        a("S27.disk"),
        a("S27.inodes"),
        a("S27.sparse"),
        a("S27.log").may(LOGGED),
        a("S28.pty"),
        a("S28.keys"),
        a("S28.inotify").may(WATCHES),
        a("S28.mqueue"),
        a("S28.sysv"),
        a("S28.timers").alike_may(QUEUED),
        a("S28.signals").alike_may(QUEUED),
        a("S28.locks").may(LOCKS),
        // S29, S30, S32: what stays
        a("S29.shm").way(Way::TwoClients),
        a("S29.msg").way(Way::TwoClients),
        a("S29.sem").way(Way::TwoClients),
        a("S29.mqueue").way(Way::TwoClients),
        a("S29.tmp").way(Way::TwoClients),
        a("S29.var-tmp").way(Way::TwoClients),
        a("S29.dev-shm").way(Way::TwoClients),
        a("S29.key").way(Way::TwoClients),
        a("S29.host-shm").way(Way::OutsideFirst),
        a("S29.host-msg").way(Way::OutsideFirst),
        a("S29.host-sem").way(Way::OutsideFirst),
        a("S29.host-mqueue").way(Way::OutsideFirst),
        a("S30.daemon").proof(Outlives).contract(ENDS),
        a("S30.deaf").proof(Outlives).contract(ENDS),
        a("S30.stopped").proof(Outlives).contract(ENDS),
        a("S30.vfork").proof(Outlives).contract(ENDS),
        a("S30.many-sessions").proof(Outlives).contract(ENDS),
        a("S30.fuse")
            .proof(Outlives)
            .contract(ENDS)
            .nobody_may_be_refused("mounting takes root, and the device is root's"),
        a("S31.own-supervisor"),
        a("S31.changing-path").guarded_may(READABLE),
        a("S32.subreaper").proof(Outlives).contract(ENDS),
        a("S32.pdeathsig")
            .proof(OutlivesMaster)
            .flags(&["--orphans", "die", "--trees", "subreaper"])
            .guarded_may(ORPHAN),
        a("S33.core").contract(
            "a limit of one byte, which stops files and pipes: nothing of a program's memory is dumped",
        ),
        // S34 to S36: ways round, ways before, ways without
        a("S34.dots").guarded_may(READABLE),
        a("S34.cwd-link").guarded_may(READABLE),
        a("S34.left-open").contract(SEARCHED),
        a("S34.master-root").as_root(),
        a("S34.magic-link").guarded_may(READABLE),
        a("S35.constructor").guarded_may(READABLE),
        a("S35.preinit").guarded_may(READABLE),
        a("S35.exec").guarded_may(READABLE),
        a("S35.audit").guarded_may(READABLE),
        a("S36.descriptors").way(Way::FewDescriptors),
        a("S36.memory").way(Way::LittleMemory),
    ]
}
