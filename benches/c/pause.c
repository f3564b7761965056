/*
 * The worker of `idle` and `spawn`: does nothing, in as little memory as a process can have.
 *
 * A benchmark that is itself killed must not leave a thousand of these behind: they die with the
 * process that started them, and, should that have died before the prctl, after five minutes.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
    alarm(300);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pause();
    return 0;
}
