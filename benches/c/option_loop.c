/*
 * Baseline of `options`: the least a program must do to have N TCP listeners with five options.
 *
 *   option_loop COUNT FIRST_ADDRESS ADDRESSES FIRST_PORT
 *
 * The addresses are those of bind_loop.c. Each option is set and read back with the calls that
 * listend makes: a buffer first without the system's limit, which takes CAP_NET_ADMIN. Prints one
 * line when all are bound and holds them until its standard input ends.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int set_and_read_back(int fd, int level, int name, int value)
{
    int got = 0;
    socklen_t length = sizeof got;
    return setsockopt(fd, level, name, &value, sizeof value) < 0
        || getsockopt(fd, level, name, &got, &length) < 0
        || got != value;
}

static int buffer(int fd, int value)
{
    int got = 0;
    socklen_t length = sizeof got;
    return (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof value) < 0
               && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value) < 0)
        || getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &got, &length) < 0
        || got != 2 * value;
}

int main(int argc, char **argv)
{
    struct in_addr first;
    if (argc != 5 || inet_pton(AF_INET, argv[2], &first) != 1) {
        fprintf(stderr, "usage: option_loop COUNT FIRST_ADDRESS ADDRESSES FIRST_PORT\n");
        return 64;
    }
    unsigned count = strtoul(argv[1], NULL, 10);
    unsigned addresses = strtoul(argv[3], NULL, 10);
    unsigned port = strtoul(argv[4], NULL, 10);

    for (unsigned i = 0; i < count; i++) {
        struct sockaddr_in where;
        memset(&where, 0, sizeof where);
        where.sin_family = AF_INET;
        where.sin_addr.s_addr = htonl(ntohl(first.s_addr) + i % addresses);
        where.sin_port = htons(port + i / addresses);

        int one = 1;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0
            || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0
            || bind(fd, (struct sockaddr *)&where, sizeof where) < 0
            || buffer(fd, 65536)
            || set_and_read_back(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
            || set_and_read_back(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60)
            || set_and_read_back(fd, IPPROTO_TCP, TCP_NODELAY, 1)
            || set_and_read_back(fd, IPPROTO_IP, IP_TOS, 72)
            || listen(fd, SOMAXCONN) < 0) {
            perror("option_loop");
            return 69;
        }
    }
    fprintf(stderr, "done\n");

    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
