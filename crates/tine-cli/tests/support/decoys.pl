# The first process of a pid namespace with few numbers: starts a server, and decoys that take the numbers that the server's
# children had. Tells of each decoy, and of every signal that one gets. Arguments: a file, the command.
#
# When the file is there, the server is asked to end.
use strict; use warnings; use Config; use POSIX ":sys_wait_h"; use Time::HiRes "sleep";

my ($stop, @command) = @ARGV;
open my $numbers, ">", "/proc/sys/kernel/pid_max" or die "pid_max: $!";
print $numbers "500\n";
close $numbers or die "pid_max: $!";

my $server = fork // die "fork: $!";
if (!$server) { exec @command or die "exec: $!" }

my (%decoys, $asked);
while (1) {
    while ((my $pid = waitpid -1, WNOHANG) > 0) {
        note("server ended $?"), exit if $pid == $server;
        note("hit $pid by " . ($? & 127)) if delete $decoys{$pid} && $? & 127;
    }
    my @born;
    while (keys %decoys < 20 && !$asked) {
        my $pid = fork // last; # for the moment there is no number
        decoy() if !$pid;
        $decoys{$pid} = 1;
        push @born, $pid;
    }
    note("decoys @born") if @born;
    if (!$asked && -e $stop) {
        $asked = 1;
        kill TERM => $server;
    }
    sleep 0.002;
}

sub decoy {
    for my $name (split " ", $Config{sig_name}) {
        next if $name =~ /^(ZERO|KILL|STOP|CHLD|CLD|NUM\d+|RT.*)$/;
        $SIG{$name} = sub { note("hit $$ by $name") };
    }
    sleep 0.01 + rand 0.05;
    POSIX::_exit(0);
}

# In one write, as others write there too.
sub note { syswrite STDERR, "$_[0]\n" }
