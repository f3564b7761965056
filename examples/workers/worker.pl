# A worker in Perl: takes its listeners by name, reports readiness, drains at SIGTERM.
use strict;
use warnings;
use IO::Handle;
use IO::Select;
use Socket;

# Another pid: the variables were meant for a process above this one.
die "no listener was inherited; start it from listend\n" if ($ENV{LISTEN_PID} // '') ne $$;
my $worker = $$;

my ($stopping, %names, $fd);
$SIG{TERM} = sub { $stopping = 1 };
# Nobody has to reap the children; wait still waits for them.
$SIG{CHLD} = 'IGNORE';

$fd = 3;
my $listeners = IO::Select->new;
for my $name (split /:/, $ENV{LISTEN_FDNAMES}) {
    open my $listener, '+<&=', $fd or die "descriptor $fd: $!\n";
    # All instances wake up for a client, and all but one find that it has been taken. A blocking
    # accept would then wait for the next one, and serve no other listener.
    $listener->blocking(0);
    $listeners->add($listener);
    $names{$fd++} = $name;
}
notify('READY=1');

# With a timeout: Perl runs a handler only between two operations, so a signal just before select
# would be noticed with the next client.
until ($stopping) {
    for my $listener ($listeners->can_read(1)) {
        # False if it was taken by another instance, or has gone.
        accept(my $client, $listener) or next;
        my $child;
        sleep 1 until defined($child = fork);    # until there can be one more process
        next if $child;
        answer($client, $names{ fileno $listener });
        exit;
    }
}
# Those who are in the queue are for other instances.
1 while wait != -1;

sub notify {
    my ($state) = @_;
    my $path = $ENV{NOTIFY_SOCKET} // return;
    $path =~ s/^@/\0/;
    socket my $to, AF_UNIX, SOCK_DGRAM, 0 or die "socket: $!\n";
    send $to, $state, 0, pack_sockaddr_un($path) or warn "NOTIFY_SOCKET: $!\n";
}

sub answer {
    my ($client, $name) = @_;
    $SIG{TERM} = 'IGNORE';    # or it would interrupt what is read
    alarm 10;                 # a silent client must not hold up the drain
    local $/ = "\r\n";
    while (defined(my $line = <$client>)) {
        next if $line ne "\r\n";
        my $body = "$name: hello from pid $worker\n";
        print {$client} "HTTP/1.1 200 OK\r\nConnection: close\r\n",
            'Content-Length: ', length $body, "\r\n\r\n$body";
        last;
    }
    close $client;
}
