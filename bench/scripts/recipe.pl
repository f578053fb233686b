#!/usr/bin/perl
# A process for each client, as the Perl Cookbook teaches it (recipe 17.11), in our own words and mended: accept goes on
# after a signal, and the reaper stops when nobody else is dead, not only when nobody else lives.
#
#     recipe.pl PORT
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);

my $server = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 4096, ReuseAddr => 1, Proto => 'tcp',
) or die "listen: $@\n";

$SIG{CHLD} = sub {
    local ($!, $?);
    1 while waitpid(-1, WNOHANG) > 0;
};

while (1) {
    my $client = $server->accept;
    if (!$client) {
        next if $!{EINTR};
        die "accept: $!\n";
    }
    my $child = fork;
    if (!defined $child) {
        warn "fork: $!\n";
    } elsif ($child == 0) {
        close $server;
        my $line;
        syswrite $client, $line if sysread $client, $line, 4096;
        exit;
    }
    close $client;
}
