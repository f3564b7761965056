#!/usr/bin/env escript
%% An HTTP server on an inherited descriptor: tells its pid.
main([Fd]) ->
    {ok, Listener} = gen_tcp:listen(0, [{fd, list_to_integer(Fd)}, binary, {active, false}, {packet, http_bin}]),
    accept(Listener).

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener).

serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, http_eoh} ->
            Body = ["pid ", os:getpid(), "\n"],
            Length = integer_to_list(iolist_size(Body)),
            gen_tcp:send(Socket, ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ", Length, "\r\n\r\n", Body]),
            gen_tcp:close(Socket);
        {ok, _} -> serve(Socket);
        {error, _} -> gen_tcp:close(Socket)
    end.
