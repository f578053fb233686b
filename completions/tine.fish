# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tine_global_optspecs
    string join \n h/help V/version
end

function __fish_tine_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tine_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tine_using_subcommand
    set -l cmd (__fish_tine_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tine -n "__fish_tine_needs_command" -s h -l help -d 'Print help'
complete -c tine -n "__fish_tine_needs_command" -s V -l version -d 'Print version'
complete -c tine -n "__fish_tine_needs_command" -f -a "serve" -d 'Serve a program: each client that connects gets an instance of its own'
complete -c tine -n "__fish_tine_needs_command" -f -a "explain" -d 'Show what the program would give up, step by step, with the reasons: takes what serve takes, and changes nothing'
complete -c tine -n "__fish_tine_needs_command" -f -a "doctor" -d 'Show what this system can do, layer by layer, and which profiles work on it'
complete -c tine -n "__fish_tine_needs_command" -f -a "connect" -d 'Be a client: standard input goes there, what comes back goes to standard output'
complete -c tine -n "__fish_tine_needs_command" -f -a "completions" -d 'Print a script that completes tine\'s words in a shell'
complete -c tine -n "__fish_tine_needs_command" -f -a "man" -d 'Print the manual page, tine(8); read it with: tine man | man -l -'
complete -c tine -n "__fish_tine_using_subcommand serve" -s c -l children -d 'Children at once, in all; a tenth of them is kept for networks that have nobody here' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -s C -l per-source -d 'Children of one source at once, those that wait counted; a quarter of all unless given. One more is refused, and told MESSAGE' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l source-mask -d 'What a source is: so many bits of an IPv4 address, and so many of an IPv6 address. A client of a Unix socket is its user' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l reserve -d 'Children that only clients of networks (IPv4 /16, IPv6 /32) without one may have; a tenth of all unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l rate -d 'How fast clients are taken in all, as N/s, N/m or N/h, and how many at once; others wait in the kernel\'s queue' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l rate-per-source -d 'How fast the clients of one source may come; more are refused' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l on-full -d 'What becomes of clients that there is no child for: wait; queue:N:TIME; refuse; or START:PERCENT:FULL, to refuse at random, the more the fuller. After queue and refuse a message may follow, with a colon; %d in it is the place' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l penalty -d 'How long a source is kept out for how its clients end, added up, as in crash=90s,signal=30s,exit.75=10s,exit=1s, timeout=10s,nobytes=1s,refused=1s,max=10m,min=15s' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l penalty-exempt -d 'Networks that are never kept out by a penalty' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l allow -d 'Who may come in, and nobody else: prefixes, user:NAME, unix, vsock:CID, all. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l deny -d 'Who may not come in; the most specific of all rules decides. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l rules -d 'A file of rules: who may come in, with which limits, variables or program; read again at SIGHUP' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l proxy -d 'Every connection begins with a PROXY header, version 1 or 2, in which a balancer names the client' -r -f -a "required\t'all of them do; one without is refused'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l proxy-from -d 'Which balancers may name clients: prefixes, and unix for whoever connects to a Unix socket' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l proxy-timeout -d 'How long a balancer has to name its client; 10s unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l first-byte-timeout -d 'End a connection whose client has not said a byte in this time' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l idle-timeout -d 'End a connection on which for this time no byte has gone either way' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l time-limit -d 'End a connection after this time in all' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l end -d 'How a connection is ended: signals to the program\'s process group, each with a time until the next, and last of all everything is killed that the program has started' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l spare -d 'Children to have ready before their clients come, at least and at most: born, set up and confined, they only become the program when they are given one. How many there are follows how many come; those who find none get a child as ever' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l acceptors -d 'Processes that accept, each for one processor; all limits hold over all of them. auto is as many as there are processors' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l spare-age -d 'Replace a spare that has waited for so long, so that no client gets an old address layout; 1m unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l trees -d 'By what all that a program starts is held together, so that it ends with its connection' -r -f -a "auto\t'a control group where one can be had, else subreapers'
cgroup\t'a control group (version 2) for each connection'
subreaper\t'subreapers: each program inherits the orphans of what it has started'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l orphans -d 'What becomes of the programs when tine is killed' -r -f -a "finish\t'they go on until their clients leave'
die\t'they are killed; without control groups, what they have started is not'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l stderr -d 'What the program\'s standard error is' -r -f -a "log\t'standard error of tine'
socket\t'the client'
null\t'nothing, /dev/null'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l env -d 'By which convention the program is told who its client is' -r -f -a "ucspi\t'PROTO, TCPREMOTEIP and the others of UCSPI; REMOTE_ADDR, REMOTE_PORT; TINE_ID'
inetd\t'REMOTE_HOST, REMOTE_ADDR, REMOTE_PORT, as xinetd; TINE_ID'
systemd\t'the client on descriptor 3, LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; REMOTE_ADDR, REMOTE_PORT, SO_COOKIE; TINE_ID'
none\t'nothing but PATH and what -E names'"
complete -c tine -n "__fish_tine_using_subcommand serve" -s E -d 'Set a variable for the program; without a value, to what it is in the environment of tine. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l user -d 'Run the program as this user (and group), by name or number, with the groups that the database gives the user' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l confine -d 'What the program gives up: none; guarded (it reads files, writes none, has no network but its client, and cannot touch its neighbours); sealed (guarded, in a small world of its own: for programs that run what clients give them); or a profile of your own, by its path. tine explain shows it line by line' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l confine-missing -d 'What becomes of a layer of the profile that this system cannot do: refuse to start, or warn and do without' -r -f -a "refuse\t'tine does not start'
warn\t'tine says so and does without'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l read -d 'What the program may read, with all beneath it. guarded lets it read everything that its user may, unless this is given; sealed shows it system directories, and what is named here. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l write -d 'What the program may write to, with all beneath it. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l exec -d 'What the program may execute, with all beneath it, beside itself; everything that it may read unless given. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l connect -d 'What the program may connect to: TCP ports, at any host; unix, for Unix sockets; all, with UDP. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l syscall -d 'System calls that the program may use although its profile refuses them, by name. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l root -d 'sealed: take the system directories from here instead of the machine\'s own' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l bind -d 'sealed: show the program a file or directory, elsewhere if TO is given, and let it write there with rw. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l tmpfs -d 'sealed: a file system in memory of each client\'s own, of this size; /tmp is one of 16M unless given. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l own -d 'sealed: which namespaces each client has of its own; the others it shares with the service\'s other clients, and no processes with anybody. Without mount there is no /proc, and no /tmp that can be written to' -r -f -a "pid\t'process ids; each has these in any case'
mount\t'mounts, with a /tmp and a /proc'
net\t'interfaces, ports, abstract sockets'
ipc\t'System V objects, message queues'
uts\t'host name'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l init -d 'sealed: whether a process of tine\'s is the first in each pid namespace. The kernel spares the first one signals that would end any other, and leaves orphans to it; a program that is to be first itself is born faster' -r -f -a "yes\t'it is'
no\t'the program is'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l chdir -d 'Run the program in this directory; where tine was started unless given' -r -F
complete -c tine -n "__fish_tine_using_subcommand serve" -l umask -d 'Permissions, in octal, that files made by the program do not get' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l rlimit -d 'Limit a resource of the program, as setrlimit(2) counts it: bytes, seconds of processor time, or items, with a suffix K, M or G, or "unlimited"; HARD is SOFT unless given. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l memory -d 'Limit the memory of each connection\'s program and all that it starts together: bytes, with a suffix K, M or G; beyond it they are killed. Takes a control group, as --pids and --cpu do' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l pids -d 'Limit how many processes and threads each connection\'s program and all that it starts may be' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l cpu -d 'Limit the processor time of each connection\'s program and all that it starts, in hundredths of one processor; may be over 100' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l backlog -d 'Clients that may wait in the kernel\'s queue of each listener whose address does not say so itself' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l datagram -d 'How the program serves datagrams; needed for udp: and unixgram: addresses' -r -f -a "wait\t'it gets the listening socket, reads as many as it likes and ends; the next one starts when the next comes'
peer\t'a child for each peer, with a connection that carries that peer\'s datagrams as records'
each\t'a child for each datagram, which is its input; what it writes until it ends is the reply'"
complete -c tine -n "__fish_tine_using_subcommand serve" -l datagram-idle -d 'With --datagram peer: seconds without a datagram in either direction after which a child\'s connection ends; 60 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l amplification -d 'With --datagram each: how many times as long as its question a reply may be, headers included; longer ones are dropped; 0 is no limit; 3 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l workers -d 'With --datagram peer or each: how many processes carry the datagrams of each udp: address, each with a socket of its own; the kernel keeps a peer with one of them; 1 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -l drain -d 'Seconds that children have to finish once tine was told to end; then they get SIGTERM, and SIGKILL 2 seconds later' -r
complete -c tine -n "__fish_tine_using_subcommand serve" -s 1 -d 'When all listeners are ready, print the port of each (nothing where there is none) and a newline, then close standard output'
complete -c tine -n "__fish_tine_using_subcommand serve" -s v -l verbose -d 'Log every client: a line when it is accepted, and one when its child has ended'
complete -c tine -n "__fish_tine_using_subcommand serve" -s q -l quiet -d 'Log errors only'
complete -c tine -n "__fish_tine_using_subcommand serve" -l listen-ok -d 'The program may bind sockets and listen at them'
complete -c tine -n "__fish_tine_using_subcommand serve" -l reply-to-low-ports -d 'With --datagram peer or each: answer datagrams from ports below 1024 too, where services live that would answer the answer'
complete -c tine -n "__fish_tine_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tine -n "__fish_tine_using_subcommand explain" -s c -l children -d 'Children at once, in all; a tenth of them is kept for networks that have nobody here' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -s C -l per-source -d 'Children of one source at once, those that wait counted; a quarter of all unless given. One more is refused, and told MESSAGE' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l source-mask -d 'What a source is: so many bits of an IPv4 address, and so many of an IPv6 address. A client of a Unix socket is its user' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l reserve -d 'Children that only clients of networks (IPv4 /16, IPv6 /32) without one may have; a tenth of all unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l rate -d 'How fast clients are taken in all, as N/s, N/m or N/h, and how many at once; others wait in the kernel\'s queue' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l rate-per-source -d 'How fast the clients of one source may come; more are refused' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l on-full -d 'What becomes of clients that there is no child for: wait; queue:N:TIME; refuse; or START:PERCENT:FULL, to refuse at random, the more the fuller. After queue and refuse a message may follow, with a colon; %d in it is the place' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l penalty -d 'How long a source is kept out for how its clients end, added up, as in crash=90s,signal=30s,exit.75=10s,exit=1s, timeout=10s,nobytes=1s,refused=1s,max=10m,min=15s' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l penalty-exempt -d 'Networks that are never kept out by a penalty' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l allow -d 'Who may come in, and nobody else: prefixes, user:NAME, unix, vsock:CID, all. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l deny -d 'Who may not come in; the most specific of all rules decides. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l rules -d 'A file of rules: who may come in, with which limits, variables or program; read again at SIGHUP' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l proxy -d 'Every connection begins with a PROXY header, version 1 or 2, in which a balancer names the client' -r -f -a "required\t'all of them do; one without is refused'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l proxy-from -d 'Which balancers may name clients: prefixes, and unix for whoever connects to a Unix socket' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l proxy-timeout -d 'How long a balancer has to name its client; 10s unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l first-byte-timeout -d 'End a connection whose client has not said a byte in this time' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l idle-timeout -d 'End a connection on which for this time no byte has gone either way' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l time-limit -d 'End a connection after this time in all' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l end -d 'How a connection is ended: signals to the program\'s process group, each with a time until the next, and last of all everything is killed that the program has started' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l spare -d 'Children to have ready before their clients come, at least and at most: born, set up and confined, they only become the program when they are given one. How many there are follows how many come; those who find none get a child as ever' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l acceptors -d 'Processes that accept, each for one processor; all limits hold over all of them. auto is as many as there are processors' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l spare-age -d 'Replace a spare that has waited for so long, so that no client gets an old address layout; 1m unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l trees -d 'By what all that a program starts is held together, so that it ends with its connection' -r -f -a "auto\t'a control group where one can be had, else subreapers'
cgroup\t'a control group (version 2) for each connection'
subreaper\t'subreapers: each program inherits the orphans of what it has started'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l orphans -d 'What becomes of the programs when tine is killed' -r -f -a "finish\t'they go on until their clients leave'
die\t'they are killed; without control groups, what they have started is not'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l stderr -d 'What the program\'s standard error is' -r -f -a "log\t'standard error of tine'
socket\t'the client'
null\t'nothing, /dev/null'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l env -d 'By which convention the program is told who its client is' -r -f -a "ucspi\t'PROTO, TCPREMOTEIP and the others of UCSPI; REMOTE_ADDR, REMOTE_PORT; TINE_ID'
inetd\t'REMOTE_HOST, REMOTE_ADDR, REMOTE_PORT, as xinetd; TINE_ID'
systemd\t'the client on descriptor 3, LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; REMOTE_ADDR, REMOTE_PORT, SO_COOKIE; TINE_ID'
none\t'nothing but PATH and what -E names'"
complete -c tine -n "__fish_tine_using_subcommand explain" -s E -d 'Set a variable for the program; without a value, to what it is in the environment of tine. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l user -d 'Run the program as this user (and group), by name or number, with the groups that the database gives the user' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l confine -d 'What the program gives up: none; guarded (it reads files, writes none, has no network but its client, and cannot touch its neighbours); sealed (guarded, in a small world of its own: for programs that run what clients give them); or a profile of your own, by its path. tine explain shows it line by line' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l confine-missing -d 'What becomes of a layer of the profile that this system cannot do: refuse to start, or warn and do without' -r -f -a "refuse\t'tine does not start'
warn\t'tine says so and does without'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l read -d 'What the program may read, with all beneath it. guarded lets it read everything that its user may, unless this is given; sealed shows it system directories, and what is named here. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l write -d 'What the program may write to, with all beneath it. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l exec -d 'What the program may execute, with all beneath it, beside itself; everything that it may read unless given. May be repeated' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l connect -d 'What the program may connect to: TCP ports, at any host; unix, for Unix sockets; all, with UDP. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l syscall -d 'System calls that the program may use although its profile refuses them, by name. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l root -d 'sealed: take the system directories from here instead of the machine\'s own' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l bind -d 'sealed: show the program a file or directory, elsewhere if TO is given, and let it write there with rw. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l tmpfs -d 'sealed: a file system in memory of each client\'s own, of this size; /tmp is one of 16M unless given. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l own -d 'sealed: which namespaces each client has of its own; the others it shares with the service\'s other clients, and no processes with anybody. Without mount there is no /proc, and no /tmp that can be written to' -r -f -a "pid\t'process ids; each has these in any case'
mount\t'mounts, with a /tmp and a /proc'
net\t'interfaces, ports, abstract sockets'
ipc\t'System V objects, message queues'
uts\t'host name'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l init -d 'sealed: whether a process of tine\'s is the first in each pid namespace. The kernel spares the first one signals that would end any other, and leaves orphans to it; a program that is to be first itself is born faster' -r -f -a "yes\t'it is'
no\t'the program is'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l chdir -d 'Run the program in this directory; where tine was started unless given' -r -F
complete -c tine -n "__fish_tine_using_subcommand explain" -l umask -d 'Permissions, in octal, that files made by the program do not get' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l rlimit -d 'Limit a resource of the program, as setrlimit(2) counts it: bytes, seconds of processor time, or items, with a suffix K, M or G, or "unlimited"; HARD is SOFT unless given. May be repeated' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l memory -d 'Limit the memory of each connection\'s program and all that it starts together: bytes, with a suffix K, M or G; beyond it they are killed. Takes a control group, as --pids and --cpu do' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l pids -d 'Limit how many processes and threads each connection\'s program and all that it starts may be' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l cpu -d 'Limit the processor time of each connection\'s program and all that it starts, in hundredths of one processor; may be over 100' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l backlog -d 'Clients that may wait in the kernel\'s queue of each listener whose address does not say so itself' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l datagram -d 'How the program serves datagrams; needed for udp: and unixgram: addresses' -r -f -a "wait\t'it gets the listening socket, reads as many as it likes and ends; the next one starts when the next comes'
peer\t'a child for each peer, with a connection that carries that peer\'s datagrams as records'
each\t'a child for each datagram, which is its input; what it writes until it ends is the reply'"
complete -c tine -n "__fish_tine_using_subcommand explain" -l datagram-idle -d 'With --datagram peer: seconds without a datagram in either direction after which a child\'s connection ends; 60 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l amplification -d 'With --datagram each: how many times as long as its question a reply may be, headers included; longer ones are dropped; 0 is no limit; 3 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l workers -d 'With --datagram peer or each: how many processes carry the datagrams of each udp: address, each with a socket of its own; the kernel keeps a peer with one of them; 1 unless given' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -l drain -d 'Seconds that children have to finish once tine was told to end; then they get SIGTERM, and SIGKILL 2 seconds later' -r
complete -c tine -n "__fish_tine_using_subcommand explain" -s 1 -d 'When all listeners are ready, print the port of each (nothing where there is none) and a newline, then close standard output'
complete -c tine -n "__fish_tine_using_subcommand explain" -s v -l verbose -d 'Log every client: a line when it is accepted, and one when its child has ended'
complete -c tine -n "__fish_tine_using_subcommand explain" -s q -l quiet -d 'Log errors only'
complete -c tine -n "__fish_tine_using_subcommand explain" -l listen-ok -d 'The program may bind sockets and listen at them'
complete -c tine -n "__fish_tine_using_subcommand explain" -l reply-to-low-ports -d 'With --datagram peer or each: answer datagrams from ports below 1024 too, where services live that would answer the answer'
complete -c tine -n "__fish_tine_using_subcommand explain" -l json -d 'For machines: print it as JSON'
complete -c tine -n "__fish_tine_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tine -n "__fish_tine_using_subcommand doctor" -l json -d 'For machines: print it as JSON'
complete -c tine -n "__fish_tine_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c tine -n "__fish_tine_using_subcommand connect" -s w -l wait -d 'For datagrams: seconds to wait for replies after the end of input and the last reply' -r
complete -c tine -n "__fish_tine_using_subcommand connect" -s h -l help -d 'Print help'
complete -c tine -n "__fish_tine_using_subcommand completions" -s h -l help -d 'Print help'
complete -c tine -n "__fish_tine_using_subcommand man" -s h -l help -d 'Print help'
