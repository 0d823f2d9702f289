/* An HTTP/1.1 load client: C keep-alive connections, each with up to P requests in flight.
 *
 * It sends one constant request (a file with head and body as they go on the wire), checks every answer's status and,
 * with -e, its body, and prints one line of JSON with counts and latencies. Latency is from the write of a request to the
 * read that holds the end of its answer. With -R the loop is open: requests fall due at that rate, whatever the server
 * does, and their latency runs from the moment they were due.
 *
 *     http_load -p PORT -r REQUEST_FILE [-c CONNECTIONS] [-d SECONDS | -n REQUESTS] [-w WARM_UP_SECONDS] [-R RATE]
 *               [-P PIPELINE] [-e EXPECTED_BODY_FILE] [-s]      -s: spin instead of sleeping in epoll_wait
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_answer.h"
#include "measure.h"

enum { MAX_PIPELINE = 64, BUFFER_BYTES = 1 << 20 };

typedef struct {
    int fd, first, outstanding;
    uint64_t sent_ns[MAX_PIPELINE]; /* ring of send times, oldest at `first` */
    char *data;
    size_t len;
} Connection;

static char *request, *expected;
static size_t request_bytes, expected_bytes;

static void send_one(Connection *c)
{
    c->sent_ns[(c->first + c->outstanding++) % MAX_PIPELINE] = arrival_gap_ns > 0 ? take_due() : now_ns();
    sent_total++;
    bytes_sent += request_bytes;
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

static void count(Connection *c, int status, const char *body, size_t body_bytes)
{
    uint64_t took = now_ns() - c->sent_ns[c->first];
    c->first = (c->first + 1) % MAX_PIPELINE;
    c->outstanding--;
    record(took);
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
    bytes_received += n;
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
    double seconds = 1, warm_up = 0, rate = 0;
    uint64_t limit = UINT64_MAX;
    while ((option = getopt(argc, argv, "p:r:c:d:n:w:P:R:e:s")) != -1)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'r': request = read_file(optarg, &request_bytes); break;
        case 'c': connections = atoi(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': limit = strtoull(optarg, NULL, 10); seconds = 1e6; break;
        case 'w': warm_up = atof(optarg); break;
        case 'P': pipeline = atoi(optarg); break;
        case 'R': rate = atof(optarg); spin = 1; break;
        case 'e': expected = read_file(optarg, &expected_bytes); break;
        case 's': spin = 1; break;
        default: return 64;
        }
    if (!port || !request || pipeline < 1 || pipeline > MAX_PIPELINE || connections < 1)
        return fprintf(stderr, "usage: http_load -p PORT -r FILE [-c N] [-d S | -n N] [-w S] [-P N] [-R RATE] [-e FILE] [-s]\n"),
               64;

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
    int warming = warm_up > 0, next = 0;
    uint64_t start = now_ns(), phase_end = start + (uint64_t)((warming ? warm_up : seconds) * 1e9), measured_from = start;
    arrival_gap_ns = rate > 0 ? 1e9 / rate : 0;
    next_arrival_ns = (double)start;
    for (int i = 0; i < connections && !rate; i++)
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
            forget();
            measured_from = now;
            phase_end = now + (uint64_t)(seconds * 1e9);
        }
        int busy = 0;
        if (rate > 0) {
            arrive(now);
            for (int tried = 0; tried < connections && due_count(); tried++) {
                Connection *c = &all[next++ % connections];
                if (c->fd >= 0 && c->outstanding < pipeline)
                    send_one(c), tried = -1;
            }
        } else {
            for (int i = 0; i < n; i++) {
                Connection *c = events[i].data.ptr;
                while (c->fd >= 0 && c->outstanding < pipeline && sent_total < limit)
                    send_one(c);
            }
        }
        if (sent_total >= limit || lost) {
            for (int i = 0; i < connections; i++)
                busy += all[i].outstanding;
            if (!busy)
                break;
        }
    }
    return print_result((now_ns() - measured_from) / 1e9);
}
