/*
 * Baseline of `startup`: the least a program must do to have N TCP listeners.
 *
 *   bind_loop COUNT FIRST_ADDRESS ADDRESSES FIRST_PORT
 *
 * Listener i is FIRST_ADDRESS + i % ADDRESSES, port FIRST_PORT + i / ADDRESSES: the same sequence
 * that the benchmark writes into the YAML. Nothing is parsed, stored, checked or explained. Prints
 * one line when all are bound and holds them until its standard input ends.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct in_addr first;
    if (argc != 5 || inet_pton(AF_INET, argv[2], &first) != 1) {
        fprintf(stderr, "usage: bind_loop COUNT FIRST_ADDRESS ADDRESSES FIRST_PORT\n");
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
            || listen(fd, SOMAXCONN) < 0) {
            perror("bind_loop");
            return 69;
        }
    }
    fprintf(stderr, "done\n");

    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
