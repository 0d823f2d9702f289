/* A closed-loop HTTP/1.1 load client: C keep-alive connections, each with up to P requests in flight.
 *
 * It sends one constant request (a file with head and body as they go on the wire), checks every answer's status and,
 * with -e, its body, and prints one line of JSON with counts and latencies. Latency is from the write of a request to the
 * read that holds the end of its answer, kept in a histogram with 64 steps per power of two (error < 1.6 %).
 *
 *     http_load -p PORT -r REQUEST_FILE [-c CONNECTIONS] [-d SECONDS | -n REQUESTS] [-w WARM_UP_SECONDS]
 *               [-P PIPELINE] [-e EXPECTED_BODY_FILE] [-s]      -s: spin instead of sleeping in epoll_wait
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 64, POWERS = 40, MAX_PIPELINE = 64, BUFFER_BYTES = 1 << 20 };

typedef struct {
    int fd, first, outstanding;
    uint64_t sent_ns[MAX_PIPELINE]; /* ring of send times, oldest at `first` */
    char *data;
    size_t len;
} Connection;

static char *request, *expected;
static size_t request_bytes, expected_bytes;
static uint64_t histogram[POWERS * STEPS];
static uint64_t answers, not_200, wrong_body, lost, sent_total, sum_ns, max_ns;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int bucket_of(uint64_t ns)
{
    if (ns < STEPS)
        return (int)ns;
    int power = 63 - __builtin_clzll(ns);
    int index = (power - 5) * STEPS + (int)((ns >> (power - 6)) & (STEPS - 1));
    return index < POWERS * STEPS ? index : POWERS * STEPS - 1;
}

static double bucket_middle_us(int index)
{
    if (index < STEPS)
        return index / 1e3;
    int power = index / STEPS + 5;
    double step = (double)(1ull << (power - 6));
    return ((double)(1ull << power) + (index % STEPS + 0.5) * step) / 1e3;
}

static double percentile_us(double fraction)
{
    uint64_t target = (uint64_t)(fraction * answers), seen = 0;
    for (int i = 0; i < POWERS * STEPS; i++)
        if ((seen += histogram[i]) > target)
            return bucket_middle_us(i);
    return max_ns / 1e3;
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        die(path);
    char *data = malloc(BUFFER_BYTES * 16);
    *bytes = fread(data, 1, BUFFER_BYTES * 16, f);
    fclose(f);
    return data;
}

static void send_one(Connection *c)
{
    c->sent_ns[(c->first + c->outstanding++) % MAX_PIPELINE] = now_ns();
    sent_total++;
    const char *p = request;
    size_t left = request_bytes;
    while (left) {
        ssize_t n = write(c->fd, p, left);
        if (n > 0) {
            p += n;
            left -= n;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {.fd = c->fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (errno != EINTR) {
            die("write");
        }
    }
}

/* Length of the answer at data[0:len] or 0; *status and the body's place are set. */
static size_t answer_bytes(const char *data, size_t len, int *status, size_t *body_at)
{
    const char *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t body = 0;
    for (const char *line = memchr(data, '\n', end - data); line; line = memchr(line, '\n', end - line)) {
        line++;
        if ((*line | 0x20) == 'c' && end - line > 15 && !strncasecmp(line, "content-length:", 15)) {
            body = strtoul(line + 15, NULL, 10);
            break;
        }
    }
    *body_at = (size_t)(end - data) + 4;
    *status = atoi(data + 9);
    return *body_at + body <= len ? *body_at + body : 0;
}

static void count(Connection *c, int status, const char *body, size_t body_bytes)
{
    uint64_t took = now_ns() - c->sent_ns[c->first];
    c->first = (c->first + 1) % MAX_PIPELINE;
    c->outstanding--;
    answers++;
    sum_ns += took;
    if (took > max_ns)
        max_ns = took;
    histogram[bucket_of(took)]++;
    if (status != 200)
        not_200++;
    else if (expected && (body_bytes != expected_bytes || memcmp(body, expected, body_bytes)))
        wrong_body++;
}

static void on_readable(Connection *c)
{
    ssize_t n = read(c->fd, c->data + c->len, BUFFER_BYTES - c->len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        fprintf(stderr, "http_load: the server closed a connection with %d requests in flight\n", c->outstanding);
        lost += c->outstanding;
        c->outstanding = 0;
        close(c->fd);
        c->fd = -1;
        return;
    }
    c->len += n;
    size_t used = 0, size, body_at;
    int status;
    while (c->outstanding && (size = answer_bytes(c->data + used, c->len - used, &status, &body_at))) {
        count(c, status, c->data + used + body_at, size - body_at);
        used += size;
    }
    if (used < c->len)
        memmove(c->data, c->data + used, c->len - used);
    c->len -= used;
}

int main(int argc, char **argv)
{
    int port = 0, connections = 1, pipeline = 1, spin = 0, option;
    double seconds = 1, warm_up = 0;
    uint64_t limit = UINT64_MAX;
    while ((option = getopt(argc, argv, "p:r:c:d:n:w:P:e:s")) != -1)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'r': request = read_file(optarg, &request_bytes); break;
        case 'c': connections = atoi(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': limit = strtoull(optarg, NULL, 10); seconds = 1e6; break;
        case 'w': warm_up = atof(optarg); break;
        case 'P': pipeline = atoi(optarg); break;
        case 'e': expected = read_file(optarg, &expected_bytes); break;
        case 's': spin = 1; break;
        default: return 64;
        }
    if (!port || !request || pipeline < 1 || pipeline > MAX_PIPELINE || connections < 1)
        return fprintf(stderr, "usage: http_load -p PORT -r REQUEST_FILE [-c N] [-d S | -n N] [-w S] [-P N] [-e FILE] [-s]\n"), 64;

    int epoll = epoll_create1(EPOLL_CLOEXEC), one = 1;
    Connection *all = calloc(connections, sizeof *all);
    struct epoll_event events[256];
    for (int i = 0; i < connections; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        all[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        all[i].data = malloc(BUFFER_BYTES);
        if (connect(all[i].fd, (struct sockaddr *)&to, sizeof to))
            die("connect");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    int warming = warm_up > 0;
    uint64_t start = now_ns(), phase_end = start + (uint64_t)((warming ? warm_up : seconds) * 1e9), measured_from = start;
    for (int i = 0; i < connections; i++)
        while (all[i].outstanding < pipeline && sent_total < limit)
            send_one(&all[i]);
    for (;;) {
        int n = epoll_wait(epoll, events, 256, spin ? 0 : 1000);
        for (int i = 0; i < n; i++)
            on_readable(events[i].data.ptr);
        uint64_t now = now_ns();
        if (now >= phase_end) {
            if (!warming)
                break;
            warming = 0;
            memset(histogram, 0, sizeof histogram);
            answers = not_200 = wrong_body = sum_ns = max_ns = 0;
            measured_from = now;
            phase_end = now + (uint64_t)(seconds * 1e9);
        }
        int busy = 0;
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            while (c->fd >= 0 && c->outstanding < pipeline && sent_total < limit)
                send_one(c);
        }
        if (sent_total >= limit || lost) {
            for (int i = 0; i < connections; i++)
                busy += all[i].outstanding;
            if (!busy)
                break;
        }
    }
    double took = (now_ns() - measured_from) / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\": %lu, \"not_200\": %lu, \"wrong_body\": %lu, \"lost\": %lu, \"sent\": %lu, \"seconds\": %.6f, "
           "\"rate\": %.1f, \"mean_us\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, \"max_us\": %.3f, "
           "\"client_cpu_s\": %.3f}\n",
           answers, not_200, wrong_body, lost, sent_total, took, answers / took, answers ? sum_ns / 1e3 / answers : 0,
           percentile_us(0.5), percentile_us(0.9), percentile_us(0.99), max_ns / 1e3, cpu);
    return not_200 || wrong_body || lost ? 1 : 0;
}
