#!/bin/sh
# A worker in shell, one process for each connection, which is standard input and output. listend
# accepts: a shell cannot. It is told its name as an argument, since the connection has none.
#
# There is nothing to drain: see stop_signal in shell.yaml.
end=$(printf '\r')
while IFS= read -r line; do
    if [ "$line" = "$end" ]; then
        body="$1: hello from pid $$"
        printf 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s\n' \
            $((${#body} + 1)) "$body"
        exit
    fi
done
