# A program that does what its client says, one line after the other, most of it what a program should not do.
#
#   say TEXT         answers with the text
#   deaf             takes no notice of HUP, INT and TERM from here on
#   heed             tells on standard error when one of them comes: "got TERM at SECONDS"
#   heed to death    the same, and ends after TERM with status 7
#   daemons COUNT    starts so many processes that were forked twice, are in a session of their own and take no notice of
#                    HUP, INT and TERM; a third of them keeps the connection, another third is stopped. Answers with
#                    their ids
#   late MS          leaves a process behind, forked twice and in a session of its own, that says "late" after a while
#   hop MS           leaves a process behind that is replaced by a child of its own, again and again, and keeps the connection
#   tick MS COUNT    says a dot so many times, with a pause before each
#   sink             reads to the client's end
#   shut             ends its own direction
#   sleep MS
#   sleep            for good, and reads nothing
#   much BYTES       says so many
#   exit STATUS
use strict; use warnings; use POSIX (); use Socket; use Time::HiRes qw(sleep time);

$| = 1;
my %do = (
    say => sub { print "$_[0]\n" },
    deaf => sub { $SIG{$_} = "IGNORE" for qw(HUP INT TERM) },
    heed => sub {
        my $dies = @_ > 0;
        for my $name (qw(HUP INT TERM)) {
            $SIG{$name} = sub {
                printf STDERR "got %s at %.3f\n", $name, time;
                POSIX::_exit(7) if $dies && $name eq "TERM";
            };
        }
    },
    daemons => sub {
        pipe my $out, my $in or die "pipe: $!";
        for my $number (1 .. $_[0]) {
            away(sub {
                $SIG{$_} = "IGNORE" for qw(HUP INT TERM);
                close $out;
                if ($number % 3) { POSIX::close($_) for 0, 1 }
                syswrite $in, "$$\n";
                close $in;
                kill STOP => $$ if $number % 3 == 1;
                rest();
            });
        }
        close $in;
        chomp(my @pids = <$out>);
        print "@pids\n";
    },
    late => sub { my ($ms) = @_; away(sub { pause($ms / 1000); print "late\n" }) },
    hop => sub {
        my ($ms) = @_;
        my $until = time + 60; # in a test that fails
        away(sub { while (time < $until) { pause($ms / 1000); (fork // die "fork: $!") and POSIX::_exit(0) } });
    },
    tick => sub { my ($ms, $count) = @_; for (1 .. $count) { pause($ms / 1000); syswrite STDOUT, "." } },
    sink => sub { 1 while defined line() },
    shut => sub { open my $socket, "+<&=", 0 or die "open: $!"; shutdown $socket, 1 or die "shutdown: $!" },
    sleep => sub { @_ ? pause($_[0] / 1000) : rest() },
    much => sub { print "x" x $_[0] },
    exit => sub { POSIX::_exit($_[0]) },
);

while (defined(my $line = line())) {
    my ($verb, @words) = split " ", $line;
    $do{$verb}->(@words);
}

# A line of the client's, without its end; nothing is read ahead. A signal does not end the reading.
sub line {
    my $line = "";
    while (1) {
        my $got = sysread STDIN, my $byte, 1;
        next if !defined $got && $!{EINTR};
        return if !$got;
        return $line if $byte eq "\n";
        $line .= $byte;
    }
}

# Sleeps so many seconds, whatever signals come.
sub pause {
    my $until = time + $_[0];
    while ((my $left = $until - time) > 0) { sleep $left }
}

sub rest { pause(1000) while 1 }

# Does something in a process that nobody is the parent of.
sub away {
    my ($task) = @_;
    my $first = fork // die "fork: $!";
    if ($first) { waitpid $first, 0; return }
    POSIX::setsid() or die "setsid: $!";
    my $second = fork // die "fork: $!";
    $task->() if !$second;
    POSIX::_exit(0);
}
