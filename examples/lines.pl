#!/usr/bin/perl
# A line server: says who the client is, then answers each line with its number and the line turned round.
use strict;
use warnings;

$| = 1; # a client waits for its answer before it says more
print "hello ", $ENV{TCPREMOTEIP} // "neighbour", "\n";
while (my $word = <STDIN>) {
    $word =~ s/[\r\n]+\z//;
    last if $word eq "quit";
    print "$. ", scalar reverse($word), "\n";
}
print "bye\n";
