/* Places where a test makes a process die, one id each. Compiled to nothing unless HEADRACE_FAILPOINTS is set. */
#ifndef HEADRACE_FAILPOINT_H
#define HEADRACE_FAILPOINT_H

#ifdef HEADRACE_FAILPOINTS
#include <signal.h>
#include <unistd.h>
static int failpoint_armed = 0;
static int failpoint_countdown = 0;
static inline void failpoint(int id) {
    if (__builtin_expect(id == failpoint_armed, 0) && --failpoint_countdown <= 0) kill(getpid(), SIGKILL);
}
static inline int failpoint_arm(int id, int hits) {
    failpoint_countdown = hits;
    failpoint_armed = id;
    return 1;
}
#else
#define failpoint(id) ((void)0)
static inline int failpoint_arm(int id, int hits) {
    (void)id;
    (void)hits;
    return 0;
}
#endif
#endif
