/*
 * Baseline of `spawn`: the least a program must do to have N children running another program.
 *
 *   spawn_loop fork|vfork COUNT PROGRAM
 *
 * All children share one pipe whose write end is CLOEXEC: each exec closes one copy of it, so the
 * end of file means that every child has reached its program. That is the cheapest proof there is:
 * two descriptors and one read for all children, where a supervisor, which must know which child
 * failed and why, needs a pipe for each. The children run side by side, as a supervisor's do.
 *
 * Prints one line when all have been exec'ed. When its standard input ends, sends SIGTERM to its
 * children, waits for each, and exits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void end_children(const pid_t *children, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        kill(children[i], SIGTERM);
    for (unsigned i = 0; i < count; i++)
        waitpid(children[i], NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc != 4 || (strcmp(argv[1], "fork") && strcmp(argv[1], "vfork"))) {
        fprintf(stderr, "usage: spawn_loop fork|vfork COUNT PROGRAM\n");
        return 64;
    }
    int use_vfork = argv[1][0] == 'v';
    unsigned count = strtoul(argv[2], NULL, 10);
    char *program[] = { argv[3], NULL };
    char *environment[] = { NULL };
    pid_t *children = calloc(count, sizeof *children);
    int executed[2];
    if (!children || pipe2(executed, O_CLOEXEC) < 0) {
        perror("spawn_loop");
        return 70;
    }

    for (unsigned i = 0; i < count; i++) {
        pid_t pid = use_vfork ? vfork() : fork();
        if (pid == 0) {
            execve(program[0], program, environment);
            /* The byte tells the parent that this was no exec. */
            (void)!write(executed[1], "!", 1);
            _exit(127);
        }
        if (pid < 0) {
            perror("spawn_loop: fork");
            end_children(children, i);
            return 70;
        }
        children[i] = pid;
    }
    close(executed[1]);

    char byte;
    ssize_t got;
    do
        got = read(executed[0], &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got != 0) {
        fprintf(stderr, "spawn_loop: a child could not execute %s\n", program[0]);
        end_children(children, count);
        return 70;
    }
    fprintf(stderr, "done\n");

    while (read(0, &byte, 1) > 0)
        ;
    end_children(children, count);
    return 0;
}
