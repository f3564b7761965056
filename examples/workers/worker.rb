# A worker in Ruby: takes its listeners by name, reports readiness, drains at SIGTERM.

require 'socket'
require 'timeout'

# Another pid: the variables were meant for a process above this one.
abort 'no listener was inherited; start it from listend' if ENV['LISTEN_PID'] != Process.pid.to_s

# By socket, since a name may come twice: `localhost:8080` is two sockets.
names = {}.compare_by_identity
ENV['LISTEN_FDNAMES'].split(':').each_with_index { |name, i| names[Socket.for_fd(3 + i)] = name }

def notify(state)
  path = ENV['NOTIFY_SOCKET'] or return
  Socket.new(:UNIX, :DGRAM).send(state, 0, Socket.sockaddr_un(path.sub(/\A@/, "\0")))
end

def answer(client, name)
  body = "#{name}: hello from pid #{Process.pid}\n"
  Timeout.timeout(10) do # a silent client must not hold up the drain
    while (line = client.gets("\r\n", 65_536))
      next if line != "\r\n"
      client.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: #{body.size}\r\n\r\n#{body}")
      break
    end
  end
rescue SystemCallError, IOError, Timeout::Error
  # The client has gone.
ensure
  client.close
end

stop, stopper = IO.pipe
trap('TERM') { stopper.write_nonblock('.') }
notify('READY=1')

until (ready = IO.select([stop, *names.keys]).first).include?(stop)
  ready.each do |listener|
    # All instances wake up for a client, and all but one find that it has been taken. A blocking
    # accept would then hang, also at SIGTERM.
    client, = listener.accept_nonblock(exception: false)
    Thread.new(client, names[listener]) { |*args| answer(*args) } if client.is_a?(Socket)
  rescue SystemCallError
    # The client has gone.
  end
end
# Those who are in the queue are for other instances. Ruby would end the threads with the program.
(Thread.list - [Thread.main]).each { |thread| thread.join(10) }
