/*
 * Baseline of `on-demand`: the least a program must do to start a worker at the first client.
 *
 *   demand_loop ADDRESS PORT PROGRAM
 *
 * Waits for a client with poll, starts PROGRAM with the listener on descriptor 3, waits for its
 * end, and waits for the next client. It limits nothing, logs nothing and notices no crash.
 *
 * Prints one line when it listens. SIGTERM ends it; should the benchmark be killed, it dies with
 * it, or after five minutes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* The first descriptor that a worker inherits (sd_listen_fds(3)). */
#define FIRST_PASSED 3

int main(int argc, char **argv)
{
    struct sockaddr_in where;
    memset(&where, 0, sizeof where);
    where.sin_family = AF_INET;
    if (argc != 4 || inet_pton(AF_INET, argv[1], &where.sin_addr) != 1) {
        fprintf(stderr, "usage: demand_loop ADDRESS PORT PROGRAM\n");
        return 64;
    }
    where.sin_port = htons(strtoul(argv[2], NULL, 10));
    char *program[] = { argv[3], NULL };
    char *environment[] = { NULL };
    alarm(300);
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0
        || (listener != FIRST_PASSED && dup2(listener, FIRST_PASSED) < 0)
        || setsockopt(FIRST_PASSED, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0
        || bind(FIRST_PASSED, (struct sockaddr *)&where, sizeof where) < 0
        || listen(FIRST_PASSED, SOMAXCONN) < 0) {
        perror("demand_loop");
        return 69;
    }
    fprintf(stderr, "done\n");

    for (;;) {
        struct pollfd client = { .fd = FIRST_PASSED, .events = POLLIN };
        if (poll(&client, 1, -1) < 0) {
            perror("demand_loop: poll");
            return 71;
        }
        pid_t pid = vfork();
        if (pid == 0) {
            execve(program[0], program, environment);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, NULL, 0) < 0) {
            perror("demand_loop");
            return 71;
        }
    }
}
