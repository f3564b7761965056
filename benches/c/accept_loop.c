/*
 * Baseline of `connections`: the least a program must do to give each connection a process.
 *
 *   accept_loop ADDRESS PORT PROGRAM
 *
 * The connection is descriptors 0 and 1 of PROGRAM, which gets an empty environment. Nothing is
 * limited, logged or remembered, nobody is told of a failure, and a blocking accept4 is the only
 * wait: children that have ended are collected after the next connection. vfork, because it is the
 * cheapest way to a new process.
 *
 * Prints one line when it listens. SIGTERM ends it; should the benchmark be killed, it dies with
 * it, or after five minutes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in where;
    memset(&where, 0, sizeof where);
    where.sin_family = AF_INET;
    if (argc != 4 || inet_pton(AF_INET, argv[1], &where.sin_addr) != 1) {
        fprintf(stderr, "usage: accept_loop ADDRESS PORT PROGRAM\n");
        return 64;
    }
    where.sin_port = htons(strtoul(argv[2], NULL, 10));
    char *program[] = { argv[3], NULL };
    char *environment[] = { NULL };
    alarm(300);
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0
        || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0
        || bind(listener, (struct sockaddr *)&where, sizeof where) < 0
        || listen(listener, SOMAXCONN) < 0) {
        perror("accept_loop");
        return 69;
    }
    fprintf(stderr, "done\n");

    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            perror("accept_loop: accept4");
            return 71;
        }
        pid_t pid = vfork();
        if (pid == 0) {
            dup2(connection, 0);
            dup2(connection, 1);
            execve(program[0], program, environment);
            _exit(127);
        }
        if (pid < 0) {
            perror("accept_loop: vfork");
            return 71;
        }
        close(connection);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
