# WEBrick on an inherited descriptor: tells its pid. At SIGTERM it finishes what it has in hand.
require 'socket'
require 'webrick'

fd = ARGV[0].to_i
listener = Socket.for_fd(fd).local_address.unix? ? UNIXServer.for_fd(fd) : TCPServer.for_fd(fd)
# It asks for the address in words that a unix socket does not have.
class UNIXSocket
  def peeraddr(*) = ['AF_INET', 0, '-', '-']
  def addr(*) = ['AF_INET', 0, '-', '-']
end
log = WEBrick::Log.new(nil, WEBrick::Log::FATAL)
server = WEBrick::HTTPServer.new(DoNotListen: true, Port: 80, ServerName: 'localhost', Logger: log, AccessLog: [])
server.listeners << listener
server.mount_proc('/') { |_, response| response.body = "pid #{Process.pid}\n" }
trap('TERM') { server.stop }
server.start
