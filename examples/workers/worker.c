/* A worker in C: takes its listeners by name, reports readiness, drains at SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t worker;

static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (path == NULL || strlen(path) > sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@')
        to.sun_path[0] = '\0';
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state, strlen(state), 0, (struct sockaddr *)&to, size) < 0)
        perror("NOTIFY_SOCKET");
    close(fd);
}

/* In a process of its own, in which SIGTERM stays blocked. */
static void answer(int client, const char *name)
{
    FILE *in = fdopen(client, "r");
    char line[4096], body[256];
    while (in != NULL && fgets(line, sizeof line, in) != NULL) {
        if (strcmp(line, "\r\n") == 0) {
            int size = snprintf(body, sizeof body, "%.99s: hello from pid %d\n", name, worker);
            dprintf(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", size, body);
            return;
        }
    }
}

int main(void)
{
    const char *pid = getenv("LISTEN_PID"), *number = getenv("LISTEN_FDS");
    char *names = getenv("LISTEN_FDNAMES");
    worker = getpid();
    /* Another pid: the variables were meant for a process above this one. */
    if (pid == NULL || number == NULL || names == NULL || atoi(pid) != worker) {
        fputs("no listener was inherited; start it from listend\n", stderr);
        return 1;
    }
    /* Blocked and read from a descriptor, SIGTERM cannot come between a check and poll(2), and
       interrupts no call. ppoll(2) would not deliver it as long as there are clients. */
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    /* Nobody has to reap the children; the wait(2) below still waits for them. */
    signal(SIGCHLD, SIG_IGN);

    int count = atoi(number);
    struct pollfd fds[count + 1];
    const char *name[count + 1];
    fds[0] = (struct pollfd){ .fd = signalfd(-1, &term, SFD_CLOEXEC), .events = POLLIN };
    for (int i = 1; i <= count; i++) {
        int fd = 2 + i;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        /* All instances wake up for a client, and all but one find that it has been taken. A
           blocking accept(2) would then hang, also at SIGTERM. */
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        fds[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
        name[i] = strsep(&names, ":");
    }
    notify("READY=1");

    while (poll(fds, count + 1, -1) < 0 || fds[0].revents == 0) {
        for (int i = 1; i <= count; i++) {
            int client = fds[i].revents != 0 ? accept4(fds[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
            if (client < 0)
                continue; /* taken by another instance, or gone */
            pid_t child;
            while ((child = fork()) < 0)
                sleep(1); /* until there can be one more process */
            if (child == 0) {
                alarm(10); /* a silent client must not hold up the drain */
                answer(client, name[i]);
                _exit(0);
            }
            close(client);
        }
    }
    /* Those who are in the queue are for other instances. */
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    return 0;
}
