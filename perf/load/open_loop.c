/* An open loop of HTTP/1.1: requests fall due at the times of a schedule made beforehand, whatever the server does.
 *
 * A request goes to the connection that has been idle longest; if none is idle, behind the requests of the next one in
 * turn (pipelined), so that it leaves when it is due. With -b up to so many requests that are due at the same moment
 * share a connection and a write, as behind a proxy: one core cannot send more than 130,000 requests a second else. Its latency runs from the moment it was due. Patient clients wait
 * for each answer; clients that give up (-g) close their connection when the oldest request on it passes its deadline,
 * lose what else is on it, and connect again. Answers count by status and by whether they came in time. When the
 * schedule is over, single requests probe until the server answers as it does at rest.
 *
 *     open_loop -p PORT -r REQUEST_FILE -c CONNECTIONS -R RATE -d SECONDS [-w WARM_UP_SECONDS] -D DEADLINE_MS [-g]
 *               [-b BURST] [-n NORMAL_US]      -n: at rest the server answers within this
 *
 * One line of JSON: counts and latencies of the requests that were due after the warm-up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_answer.h"
#include "measure.h"

enum { DEPTH = 512, BUFFER_BYTES = 1 << 17, REPEATS = 64, IDLE = -1 };

typedef struct {
    int fd, armed;
    uint32_t first, outstanding;
    size_t unsent; /* bytes of requests that are due and not written */
    uint64_t due_ns[DEPTH];
    char *data;
    size_t len;
} Connection;

/* UNSENT: it was due while DEPTH others waited on its connection. */
enum { IN_TIME, LATE, REFUSED, EXPIRED, OTHER, GAVE_UP, LOST, UNSENT, KINDS };
static uint64_t counts[KINDS], reconnects;
static uint32_t *took_us[KINDS]; /* by kind: latencies of the measured requests */
static uint32_t *send_lag_us;
static uint64_t send_count;
static char *requests; /* REPEATS times the same */
static size_t request_bytes;
static int port, connection_count = 256, burst = 1, gives_up, epoll_fd;
static uint64_t deadline_ns = 100000000, measured_from;
static Connection *all;
static int *idle; /* ring of connections without a request on them */
static uint32_t idle_first, idle_count;

static void count(int kind, uint64_t due_ns, uint64_t now)
{
    if (due_ns < measured_from)
        return;
    uint64_t us = (now - due_ns) / 1000;
    took_us[kind][counts[kind]++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void now_idle(int index)
{
    idle[(idle_first + idle_count++) % connection_count] = index;
}

static void watch(Connection *c, int wants_write, int operation)
{
    struct epoll_event event = {.events = wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
    c->armed = wants_write;
}

static void open_connection(Connection *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        die("connect");
    c->len = c->unsent = 0;
    watch(c, 1, EPOLL_CTL_ADD);
}

/* Whatever was on the connection is over, as `kind`; it is opened again. */
static void reopen(Connection *c, int kind, uint64_t now)
{
    for (uint32_t i = 0; i < c->outstanding; i++)
        count(kind, c->due_ns[(c->first + i) % DEPTH], now);
    if (c->outstanding)
        now_idle((int)(c - all));
    c->outstanding = 0;
    close(c->fd);
    reconnects++;
    open_connection(c);
}

static void flush(Connection *c)
{
    while (c->unsent) {
        /* Behind whole requests comes the same text again: only the place in it counts. */
        size_t at = (request_bytes - c->unsent % request_bytes) % request_bytes;
        size_t room = REPEATS * request_bytes - at, n = c->unsent < room ? c->unsent : room;
        ssize_t written = send(c->fd, requests + at, n, MSG_NOSIGNAL);
        if (written < 0)
            break; /* EAGAIN, or an error that the next read tells of */
        c->unsent -= written;
    }
    if (!!c->unsent != c->armed)
        watch(c, c->unsent != 0, EPOLL_CTL_MOD);
}

static void flush_last(Connection *c)
{
    if (c && !c->armed)
        flush(c);
}

/* is_last: of those that are due now; what is written later leaves together. */
static void send_due(uint64_t due_ns, uint64_t now, int is_last)
{
    static int turn, together;
    static Connection *last;
    Connection *c;
    if (last && together < burst) {
        c = last;
        together++;
    } else if (idle_count) {
        c = &all[idle[idle_first]];
        idle_first = (idle_first + 1) % connection_count;
        idle_count--;
    } else {
        c = &all[turn++ % connection_count];
    }
    if (due_ns >= measured_from)
        send_lag_us[send_count++] = (uint32_t)((now - due_ns) / 1000);
    if (c->outstanding == DEPTH) {
        count(UNSENT, due_ns, now);
        flush_last(last);
        last = NULL;
        return;
    }
    c->due_ns[(c->first + c->outstanding++) % DEPTH] = due_ns;
    c->unsent += request_bytes;
    if (c != last) {
        flush_last(last);
        last = c;
        together = 1;
    }
    if (is_last)
        flush_last(last), last = NULL;
}

static void on_answer(Connection *c, int status, uint64_t now)
{
    uint64_t due = c->due_ns[c->first];
    c->first = (c->first + 1) % DEPTH;
    if (--c->outstanding == 0)
        now_idle((int)(c - all));
    int kind = status == 200 ? (now - due <= deadline_ns ? IN_TIME : LATE) : status == 503 ? REFUSED : status == 504 ? EXPIRED : OTHER;
    count(kind, due, now);
}

static void on_readable(Connection *c, uint64_t now)
{
    ssize_t n = read(c->fd, c->data + c->len, BUFFER_BYTES - c->len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        reopen(c, LOST, now);
        return;
    }
    c->len += n;
    size_t used = 0, size, body_at;
    int status;
    while (c->outstanding && (size = answer_bytes(c->data + used, c->len - used, &status, &body_at))) {
        on_answer(c, status, now);
        used += size;
    }
    memmove(c->data, c->data + used, c->len - used);
    c->len -= used;
}

static void serve_events(int timeout_ms)
{
    struct epoll_event events[64];
    int n = epoll_wait(epoll_fd, events, 64, timeout_ms);
    uint64_t now = now_ns();
    for (int i = 0; i < n; i++) {
        Connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT)
            flush(c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            on_readable(c, now);
    }
}

static void give_up(uint64_t now)
{
    for (int i = 0; gives_up && i < connection_count; i++)
        if (all[i].outstanding && now - all[i].due_ns[all[i].first] > deadline_ns)
            reopen(&all[i], GAVE_UP, now);
}

/* Milliseconds from the end of the schedule to the first of five requests in a row that are answered as at rest; -1: none in
 * five seconds. What was still under way has been answered or given up by then. */
static double recovery_ms(uint64_t ended, uint64_t normal_ns)
{
    int good = 0;
    uint64_t since = 0;
    while (now_ns() - ended < 5000000000u) {
        uint64_t before = now_ns(), answered = counts[IN_TIME];
        send_due(before, before, 1);
        while (counts[IN_TIME] == answered && now_ns() - before < normal_ns)
            serve_events(0);
        give_up(now_ns());
        if (counts[IN_TIME] > answered && now_ns() - before < normal_ns) {
            since = good++ ? since : before;
            if (good == 5)
                return (since - ended) / 1e6;
        } else {
            good = 0;
        }
        usleep(2000);
    }
    return -1;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *name, uint32_t *us, uint64_t n)
{
    qsort(us, n, sizeof *us, by_size);
    printf("\"%s_p50_us\": %u, \"%s_p99_us\": %u, \"%s_max_us\": %u, ", name, n ? us[n / 2] : 0, name,
           n ? us[(uint64_t)(0.99 * (n - 1))] : 0, name, n ? us[n - 1] : 0);
}

int main(int argc, char **argv)
{
    double rate = 0, seconds = 1, warm_up = 0;
    uint64_t normal_ns = 50000000;
    int option;
    char *request = NULL;
    while ((option = getopt(argc, argv, "p:r:c:R:d:w:D:n:b:g")) != -1)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'r': request = read_file(optarg, &request_bytes); break;
        case 'c': connection_count = atoi(optarg); break;
        case 'R': rate = atof(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'D': deadline_ns = (uint64_t)(atof(optarg) * 1e6); break;
        case 'n': normal_ns = (uint64_t)(atof(optarg) * 1e3); break;
        case 'b': burst = atoi(optarg); break;
        case 'g': gives_up = 1; break;
        default: return 64;
        }
    if (!port || !request || connection_count < 1 || rate <= 0)
        return fprintf(stderr, "usage: open_loop -p PORT -r FILE -c N -R RATE -d S [-w S] -D MS [-g] [-n US]\n"), 64;
    requests = malloc(REPEATS * request_bytes);
    for (int i = 0; i < REPEATS; i++)
        memcpy(requests + i * request_bytes, request, request_bytes);

    uint64_t planned = (uint64_t)((seconds + warm_up) * rate * 1.1) + 4000, n = 0;
    uint64_t *schedule = malloc(planned * sizeof *schedule);
    double length_ns = (seconds + warm_up) * 1e9;
    arrival_gap_ns = 1e9 / rate;
    for (next_arrival_ns = 0; n < planned && next_arrival_ns < length_ns; due_first = due_end = 0) {
        double before = next_arrival_ns;
        arrive((uint64_t)next_arrival_ns + 1); /* one or, very rarely, more */
        for (uint64_t i = 0; i < due_count() && n < planned; i++)
            schedule[n++] = due[i % BACKLOG];
        if (next_arrival_ns <= before)
            break;
    }
    for (int kind = 0; kind < KINDS; kind++)
        took_us[kind] = malloc((planned + 4096) * sizeof(uint32_t));
    send_lag_us = malloc((planned + 4096) * sizeof(uint32_t));

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    all = calloc(connection_count, sizeof *all);
    idle = malloc(connection_count * sizeof *idle);
    for (int i = 0; i < connection_count; i++) {
        all[i].data = malloc(BUFFER_BYTES);
        open_connection(&all[i]);
        now_idle(i);
        if (i % 64 == 63)
            usleep(2000);
    }
    for (int i = 0; i < 20; i++)
        serve_events(5);
    uint64_t start = now_ns(), looked = start, sent = 0;
    measured_from = start + (uint64_t)(warm_up * 1e9);
    while (sent < n) {
        uint64_t now = now_ns();
        for (int some = 0; some < 64 && sent < n && start + schedule[sent] <= now; some++, sent++)
            send_due(start + schedule[sent], now, some == 63 || sent + 1 == n || start + schedule[sent + 1] > now);
        serve_events(0);
        if (now - looked > 1000000) {
            looked = now;
            give_up(now);
        }
    }
    uint64_t ended = now_ns(), offered = send_count, waiting = 0;
    uint64_t measured = 0;
    /* Patient clients get what is still to come; one that gives up has had its deadline by then. */
    while (now_ns() - ended < 3000000000u) {
        serve_events(1);
        give_up(now_ns());
        waiting = 0;
        for (int i = 0; i < connection_count; i++)
            waiting += all[i].outstanding;
        if (!waiting)
            break;
    }
    double drained_ms = (now_ns() - ended) / 1e6;
    uint64_t final_counts[KINDS];
    for (int kind = 0; kind < KINDS; kind++)
        measured += final_counts[kind] = counts[kind];
    double back_ms = recovery_ms(ended, normal_ns);
    double window_s = (ended - measured_from) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"offered\": %lu, \"seconds\": %.3f, \"offered_rate\": %.1f, \"goodput\": %.1f, ", offered, window_s,
           offered / window_s, final_counts[IN_TIME] / window_s);
    printf("\"in_time\": %lu, \"late\": %lu, \"refused\": %lu, \"expired\": %lu, \"other\": %lu, \"gave_up\": %lu, \"lost\": %lu, "
           "\"unsent\": %lu, \"unanswered\": %lu, \"reconnects\": %lu, ",
           final_counts[IN_TIME], final_counts[LATE], final_counts[REFUSED], final_counts[EXPIRED], final_counts[OTHER],
           final_counts[GAVE_UP], final_counts[LOST], final_counts[UNSENT], offered > measured ? offered - measured : 0, reconnects);
    uint64_t served = final_counts[IN_TIME];
    uint32_t *ok = malloc((final_counts[IN_TIME] + final_counts[LATE] + 1) * sizeof *ok);
    memcpy(ok, took_us[IN_TIME], served * sizeof *ok);
    memcpy(ok + served, took_us[LATE], final_counts[LATE] * sizeof *ok);
    print_times("served", ok, served + final_counts[LATE]);
    print_times("refused", took_us[REFUSED], final_counts[REFUSED]);
    print_times("expired", took_us[EXPIRED], final_counts[EXPIRED]);
    print_times("send_lag", send_lag_us, offered);
    printf("\"drained_ms\": %.1f, \"recovery_ms\": %.1f, \"client_cpu_s\": %.3f}\n", drained_ms, back_ms,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    return 0;
}
