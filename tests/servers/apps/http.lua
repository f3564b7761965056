-- lua-http on an inherited descriptor. At SIGTERM it finishes what it has in hand.
local cqueues, signal = require "cqueues", require "cqueues.signal"
local socket, server, headers = require "cqueues.socket", require "http.server", require "http.headers"

signal.block(signal.SIGTERM)
local http = server.new {
    socket = assert(socket.fdopen(tonumber(arg[1]))),
    tls = false,
    onstream = function(_, stream)
        assert(stream:get_headers())
        local reply = headers.new()
        reply:append(":status", "200")
        stream:write_headers(reply, false)
        stream:write_chunk("hello\n", true)
    end,
    onerror = function() end,
}
local listener = signal.listen(signal.SIGTERM)
http.cq:wrap(function()
    listener:wait()
    http:pause()
    while http.n_connections > 0 do cqueues.sleep(0.01) end
    os.exit()
end)
assert(http:loop())
