# EventMachine on an inherited descriptor: says what it hears. At SIGTERM it finishes what it has in hand.
require 'eventmachine'
require 'socket'

class Echo < EventMachine::Connection
  def receive_data(data)
    send_data(data)
    close_connection_after_writing
  end
end

EventMachine.run do
  server = EventMachine.attach_server(Socket.for_fd(ARGV[0].to_i), Echo)
  trap('TERM') { $stop = true }
  EventMachine.add_periodic_timer(0.05) do
    EventMachine.stop_server(server) && server = nil if $stop && server
    EventMachine.stop if $stop && EventMachine.connection_count.zero?
  end
end
