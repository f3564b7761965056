/*
 * The worker of `notify`: so many notifications, 10,000 in a second, ten at a time. Then it says how long that took.
 *
 *   notify_flood COUNT
 */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE 10
#define PERIOD 1000000L

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    long count = argc > 1 ? atol(argv[1]) : 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (path == NULL || fd < 0 || strlen(path) >= sizeof address.sun_path)
        return 1;
    alarm(300);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    strcpy(address.sun_path, path);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (path[0] == '@')
        address.sun_path[0] = 0;
    if (connect(fd, (struct sockaddr *)&address, length) != 0 || send(fd, "READY=1", 7, 0) != 7)
        return 2;

    char text[64];
    double from = now();
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long sent = 0; sent < count; sent++) {
        int size = snprintf(text, sizeof text, "STATUS=%ld requests served", sent);
        if (send(fd, text, size, 0) != size)
            return 3;
        if ((sent + 1) % AT_ONCE)
            continue;
        next.tv_nsec += PERIOD;
        if (next.tv_nsec >= 1000000000L) {
            next.tv_nsec -= 1000000000L;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    fprintf(stderr, "flood done in %.0f ms\n", now() - from);
    pause();
    return 0;
}
