# HTTP::Daemon on an inherited descriptor: tells its pid. At SIGTERM it finishes what it has in hand.
use strict;
use warnings;
use HTTP::Daemon;
use HTTP::Response;
use IO::Select;

my $daemon = HTTP::Daemon->new_from_fd($ARGV[0], 'r+') or die "no listener: $!";
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
my $readable = IO::Select->new($daemon);
until ($stop) {
    # SIGTERM just before it waits is seen after this time.
    next unless $readable->can_read(0.1);
    my $connection = $daemon->accept or next;
    if (my $request = $connection->get_request) {
        my $body = "pid $$\n";
        my $response = HTTP::Response->new(200, 'OK', ['Content-Length' => length $body], $body);
        $connection->force_last_request;
        $connection->send_response($response);
    }
    $connection->close;
}
