# A worker of einhorn: serves HTTP at the sockets of EINHORN_FD_*, says that it is up with einhorn's own library
# if that is installed, and as it does otherwise. At SIGUSR2 it stops accepting, and ends.
require 'socket'
require 'yaml'

begin
  require 'einhorn/worker'
rescue LoadError
  module Einhorn
    module Worker
      def self.ack!
        line = YAML.dump('command' => 'worker:ack', 'pid' => Process.pid)
        socket = UNIXSocket.open(ENV.fetch('EINHORN_SOCK_PATH'))
        socket.write("#{line.gsub('%', '%25').gsub("\n", '%0A')}\n")
        socket.close
      end
    end
  end
end

raise 'not under einhorn' unless Process.ppid == Integer(ENV.fetch('EINHORN_MASTER_PID'))

count = Integer(ENV.fetch('EINHORN_FD_COUNT'))
listeners = count.times.map { |n| Socket.for_fd(Integer(ENV.fetch("EINHORN_FD_#{n}"))) }
stopping, told = IO.pipe
trap('USR2') { told.write_nonblock('x') }
Einhorn::Worker.ack!
loop do
  ready, = IO.select(listeners + [stopping])
  break if ready.include?(stopping)

  ready.each do |listener|
    connection, = listener.accept_nonblock(exception: false)
    next unless connection.is_a?(Socket) # Another instance was faster.

    nil until connection.gets.to_s.strip.empty?
    body = "pid #{Process.pid}\n"
    connection.write("HTTP/1.1 200 OK\r\nContent-Length: #{body.size}\r\nConnection: close\r\n\r\n#{body}")
    connection.close
  end
end
