# A Rack application for puma and unicorn: tells its pid.
require 'socket'

# Where the tests say, it waits until it may start: it connects, and goes on at end of file.
UNIXSocket.open(ENV['START'], &:read) if ENV['START']

run lambda { |_|
  body = "pid #{Process.pid}\n"
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
}
