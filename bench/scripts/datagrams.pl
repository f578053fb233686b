#!/usr/bin/perl
# An echo for datagrams: recv, send.  datagrams.pl PORT
use strict;
use warnings;
use Socket;

socket my $socket, PF_INET, SOCK_DGRAM, 0 or die "socket: $!\n";
setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 4 << 20;
bind $socket, pack_sockaddr_in($ARGV[0], INADDR_LOOPBACK) or die "bind: $!\n";
while (1) {
    my $from = recv $socket, my $line, 2048, 0;
    send $socket, $line, 0, $from if $from;
}
