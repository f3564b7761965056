/*
 * The worker of `flows`: sends each datagram that comes to the socket on descriptor 3 back.
 */
#include <sys/socket.h>

int main(void)
{
    static char data[2048];
    for (;;) {
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(3, data, sizeof data, 0, (struct sockaddr *)&from, &length);
        if (size < 0 || sendto(3, data, size, 0, (struct sockaddr *)&from, length) < 0)
            return 1;
    }
}
