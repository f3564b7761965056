# Net::Server below an inetd: says what it hears.
use strict;
use warnings;
use base 'Net::Server::INET';

sub process_request {
    my $line = <STDIN>;
    print $line // '';
}

main->run(log_level => 0);
