#!/usr/bin/perl
# Net::Server: a process for each client (Fork), or processes that are used again (PreFork).
#
#     net_server.pl Fork|PreFork PORT
use strict;
use warnings;

package Echo;

my ($kind, $port) = @ARGV;
@ARGV = ();
die "net_server.pl Fork|PreFork PORT\n" unless $port && $kind =~ /^(Pre)?Fork$/;
eval "require Net::Server::$kind" or die $@;
our @ISA = ("Net::Server::$kind");

sub process_request {
    my $self = shift;
    my $line;
    syswrite $self->{server}{client}, $line if sysread $self->{server}{client}, $line, 4096;
}

# Of PreFork's settings only how many processes there may be is changed: 256 in place of 50.
Echo->run(
    host => '127.0.0.1', port => $port, ipv => 4, listen => 4096, log_level => 0,
    max_servers => $kind eq 'Fork' ? 12000 : 256,
);
