/*
 * The worker of `connections` and `many-listeners`: one line into the connection on descriptor 1,
 * and the end. What is measured is what comes before.
 */
#include <unistd.h>

int main(void)
{
    return write(1, "hello\n", 6) != 6;
}
