/*
 * The worker of `on-demand`: takes one client from the listener on descriptor 3, writes one line
 * and ends, so that the next client is a cold start again.
 */
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    int client = accept(3, NULL, NULL);
    if (client < 0)
        return 1;
    int short_write = write(client, "hello\n", 6) != 6;
    close(client);
    return short_write;
}
