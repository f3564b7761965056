# A PSGI application: tells its pid.
sub { my $body = "pid $$\n"; [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $body], [$body]] };
