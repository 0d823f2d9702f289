/* A gRPC load client: C connections, each with up to M calls in flight; one constant request message.
 *
 * It is cheap, so that its core is not the limit: headers are sent as a gRPC client's are after its first call (indexed:
 * one byte each), frames are walked by hand, only header blocks go through libnghttp2's decoder. Yet it believes nothing:
 * every call must end with :status 200, grpc-status 0 and one message; with -e the message must be the expected one,
 * where its last -f values, FP32, may differ by 1e-4 (a row's result depends on its batch in the last bits).
 * What one read made possible leaves in one write. Windows of the server are respected, ours never close.
 *
 *     h2_load -p PORT -u PATH -r MESSAGE_FILE [-c CONNECTIONS] [-m STREAMS] [-d SECONDS | -n REQUESTS]
 *             [-w WARM_UP_SECONDS] [-R RATE] [-e EXPECTED_FILE [-f FLOATS]] [-o FIRST_REPLY_FILE] [-s]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

enum { MAX_STREAMS = 100, IN_BYTES = 1 << 20, MAX_REPLY_BYTES = 1 << 16, PREFIX_BYTES = 5, HEAD_BYTES = 9 };
enum { WINDOW_BYTES = 1 << 30 };

typedef struct {
    uint32_t id; /* 0: free */
    uint64_t began_ns;
    size_t sent, got;
    int64_t window;
    int is_status_200, is_grpc_ok;
    char *reply;
} Stream;

typedef struct {
    int fd, active, is_first, is_waiting;
    uint32_t next_id, max_frame_bytes;
    int64_t window, initial_window;
    size_t consumed;
    nghttp2_hd_inflater *inflater;
    Stream streams[MAX_STREAMS];
    char *in, *out;
    size_t in_len, out_len, out_sent, out_cap;
} Connection;

static char *message, *expected; /* `message` begins with its gRPC prefix */
static size_t message_bytes, expected_bytes, float_count;
static char first_block[512], block[16];
static size_t first_block_bytes, block_bytes;
static const char *first_reply_path;
static int stream_count = 1, epoll;

static uint32_t get32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | u[1] << 16 | u[2] << 8 | u[3];
}

static void put32(char *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(value >> (24 - 8 * i));
}

/* ---- bytes out */

static char *reserve(Connection *c, size_t n)
{
    if (c->out_len + n > c->out_cap) {
        c->out_cap = 2 * (c->out_len + n);
        c->out = realloc(c->out, c->out_cap);
        if (!c->out)
            die("realloc");
    }
    char *p = c->out + c->out_len;
    c->out_len += n;
    return p;
}

static char *frame(Connection *c, int type, int flags, uint32_t id, size_t n)
{
    char *p = reserve(c, HEAD_BYTES + n);
    p[0] = (char)(n >> 16);
    p[1] = (char)(n >> 8);
    p[2] = (char)n;
    p[3] = (char)type;
    p[4] = (char)flags;
    put32(p + 5, id);
    return p + HEAD_BYTES;
}

static void window_update(Connection *c, uint32_t id, uint32_t n)
{
    put32(frame(c, NGHTTP2_WINDOW_UPDATE, 0, id, 4), n);
}

static void flush(Connection *c)
{
    while (c->out_sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            die("h2_load: send");
        if (n < 0)
            break;
        c->out_sent += n;
        bytes_sent += n;
    }
    if (c->out_sent == c->out_len)
        c->out_sent = c->out_len = 0;
    if (c->is_waiting != (c->out_len > 0)) {
        c->is_waiting = c->out_len > 0;
        struct epoll_event event = {.events = c->is_waiting ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    }
}

/* As much of the request's message as the windows allow. */
static void send_data(Connection *c, Stream *s)
{
    while (s->sent < message_bytes) {
        int64_t n = message_bytes - s->sent;
        n = n < c->max_frame_bytes ? n : c->max_frame_bytes;
        n = n < c->window ? n : c->window;
        n = n < s->window ? n : s->window;
        if (n <= 0)
            return;
        int is_last = s->sent + n == message_bytes;
        memcpy(frame(c, NGHTTP2_DATA, is_last ? NGHTTP2_FLAG_END_STREAM : 0, s->id, n), message + s->sent, n);
        s->sent += n;
        s->window -= n;
        c->window -= n;
    }
}

static void start(Connection *c)
{
    Stream *s = c->streams;
    while (s->id)
        s++;
    *s = (Stream){.id = c->next_id, .window = c->initial_window, .reply = s->reply};
    s->began_ns = arrival_gap_ns > 0 ? take_due() : now_ns();
    c->next_id += 2;
    c->active++;
    sent_total++;
    const char *headers = c->is_first ? first_block : block;
    size_t n = c->is_first ? first_block_bytes : block_bytes;
    c->is_first = 0;
    memcpy(frame(c, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, s->id, n), headers, n);
    send_data(c, s);
}

/* ---- bytes in */

static void over(Connection *c, const char *why)
{
    fprintf(stderr, "h2_load: %s, %d calls in flight\n", why, c->active);
    lost += c->active ? c->active : 1;
    c->active = 0;
    close(c->fd);
    c->fd = -1;
}

static int is_expected(const char *data, size_t n)
{
    if (!expected)
        return n > 0;
    size_t exact = expected_bytes - 4 * float_count;
    if (n != expected_bytes || memcmp(data, expected, exact))
        return 0;
    for (size_t i = exact; i < n; i += 4) {
        float a, b;
        memcpy(&a, data + i, 4);
        memcpy(&b, expected + i, 4);
        if (!(fabsf(a - b) <= 1e-4f))
            return 0;
    }
    return 1;
}

static void finish(Connection *c, Stream *s)
{
    record(now_ns() - s->began_ns);
    size_t n = s->got > PREFIX_BYTES ? s->got - PREFIX_BYTES : 0;
    if (!s->is_status_200 || !s->is_grpc_ok)
        not_200++;
    else if (!n || s->reply[0] || get32(s->reply + 1) != n || !is_expected(s->reply + PREFIX_BYTES, n))
        wrong_body++;
    if (first_reply_path) {
        FILE *f = fopen(first_reply_path, "wb");
        if (!f || fwrite(s->reply + PREFIX_BYTES, 1, n, f) != n || fclose(f))
            die(first_reply_path);
        first_reply_path = NULL;
    }
    s->id = 0;
    c->active--;
}

static void on_headers(Connection *c, Stream *s, const char *p, size_t n)
{
    nghttp2_nv field;
    int flags = 0;
    while (n || !(flags & NGHTTP2_HD_INFLATE_FINAL)) {
        ssize_t used = nghttp2_hd_inflate_hd2(c->inflater, &field, &flags, (const uint8_t *)p, n, 1);
        if (used < 0)
            return over(c, "a header block cannot be decoded");
        p += used;
        n -= used;
        if (!s || !(flags & NGHTTP2_HD_INFLATE_EMIT))
            continue;
        if (field.namelen == 7 && !memcmp(field.name, ":status", 7))
            s->is_status_200 = field.valuelen == 3 && !memcmp(field.value, "200", 3);
        else if (field.namelen == 11 && !memcmp(field.name, "grpc-status", 11))
            s->is_grpc_ok = field.valuelen == 1 && field.value[0] == '0';
        else if (field.namelen == 12 && !memcmp(field.name, "grpc-message", 12) && field.valuelen)
            fprintf(stderr, "h2_load: %.*s\n", (int)field.valuelen, (const char *)field.value);
    }
    nghttp2_hd_inflate_end_headers(c->inflater);
}

static void on_settings(Connection *c, int flags, const char *p, size_t n)
{
    if (flags & NGHTTP2_FLAG_ACK)
        return;
    for (; n >= 6; p += 6, n -= 6) {
        int id = (unsigned char)p[0] << 8 | (unsigned char)p[1];
        uint32_t value = get32(p + 2);
        if (id == NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE) {
            for (Stream *s = c->streams; s < c->streams + stream_count; s++)
                s->window += (int64_t)value - c->initial_window;
            c->initial_window = value;
        } else if (id == NGHTTP2_SETTINGS_MAX_FRAME_SIZE) {
            c->max_frame_bytes = value;
        }
    }
    frame(c, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, 0);
}

static void on_frame(Connection *c, int type, int flags, uint32_t id, const char *p, size_t n)
{
    Stream *s = NULL;
    for (Stream *one = c->streams; id && one < c->streams + stream_count; one++)
        if (one->id == id)
            s = one;
    if (type == NGHTTP2_DATA && s) {
        if (flags & NGHTTP2_FLAG_PADDED || s->got + n > MAX_REPLY_BYTES)
            return over(c, "a reply that is padded or larger than 64 KiB");
        memcpy(s->reply + s->got, p, n);
        s->got += n;
        c->consumed += n;
        if (c->consumed > WINDOW_BYTES / 2) {
            window_update(c, 0, c->consumed);
            c->consumed = 0;
        }
    } else if (type == NGHTTP2_HEADERS) {
        if (!(flags & NGHTTP2_FLAG_END_HEADERS) || flags & (NGHTTP2_FLAG_PADDED | NGHTTP2_FLAG_PRIORITY))
            return over(c, "a header block in several frames, padded or with a priority");
        on_headers(c, s, p, n);
    } else if (type == NGHTTP2_SETTINGS) {
        on_settings(c, flags, p, n);
    } else if (type == NGHTTP2_WINDOW_UPDATE) {
        *(s ? &s->window : id ? &(int64_t){0} : &c->window) += get32(p);
        for (Stream *one = c->streams; message_bytes > 16384 && one < c->streams + stream_count; one++)
            if (one->id)
                send_data(c, one);
    } else if (type == NGHTTP2_PING && !(flags & NGHTTP2_FLAG_ACK)) {
        memcpy(frame(c, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, 8), p, 8);
    } else if (type == NGHTTP2_GOAWAY || (type == NGHTTP2_RST_STREAM && s)) {
        return over(c, type == NGHTTP2_GOAWAY ? "GOAWAY" : "RST_STREAM");
    }
    if (s && c->fd >= 0 && (type == NGHTTP2_DATA || type == NGHTTP2_HEADERS) && flags & NGHTTP2_FLAG_END_STREAM)
        finish(c, s);
}

static void on_readable(Connection *c)
{
    ssize_t n = read(c->fd, c->in + c->in_len, IN_BYTES - c->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        return over(c, "the server closed a connection");
    bytes_received += n;
    c->in_len += n;
    size_t used = 0;
    while (c->fd >= 0 && c->in_len - used >= HEAD_BYTES) {
        const char *p = c->in + used;
        size_t length = get32(p) >> 8;
        if (c->in_len - used < HEAD_BYTES + length)
            break;
        on_frame(c, p[3], p[4], get32(p + 5) & 0x7fffffff, p + HEAD_BYTES, length);
        used += HEAD_BYTES + length;
    }
    if (used < c->in_len)
        memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
}

/* ---- set-up */

static char *literal(char *p, int first, const char *name, const char *value)
{
    *p++ = (char)first;
    for (int i = name ? 0 : 1; i < 2; i++) {
        const char *text = i ? value : name;
        size_t n = strlen(text);
        if (n > 126)
            die("h2_load: header longer than 126 bytes");
        *p++ = (char)n;
        p = mempcpy(p, text, n);
    }
    return p;
}

/* Each header but two of HPACK's static table enters the dynamic table once and is one byte afterwards. */
static void make_blocks(const char *path, int port)
{
    char authority[32], *p = first_block;
    snprintf(authority, sizeof authority, "127.0.0.1:%d", port);
    p = mempcpy(p, "\x83\x86", 2); /* :method POST, :scheme http */
    p = literal(p, 0x44, NULL, path);
    p = literal(p, 0x41, NULL, authority);
    p = literal(p, 0x40, "te", "trailers");
    p = literal(p, 0x5f, NULL, "application/grpc");
    p = literal(p, 0x40, "grpc-accept-encoding", "identity, deflate, gzip");
    p = literal(p, 0x7a, NULL, "h2_load");
    first_block_bytes = p - first_block;
    memcpy(block, "\x83\x86\xc3\xc2\xc1\xc0\xbf\xbe", block_bytes = 8);
}

static void make_message(const char *path)
{
    size_t n;
    char *payload = read_file(path, &n);
    message_bytes = PREFIX_BYTES + n;
    message = malloc(message_bytes);
    message[0] = 0;
    put32(message + 1, (uint32_t)n);
    memcpy(message + PREFIX_BYTES, payload, n);
    free(payload);
}

static void open_connection(Connection *c, int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    *c = (Connection){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .is_first = 1, .next_id = 1};
    c->max_frame_bytes = 16384;
    c->window = c->initial_window = 65535;
    c->in = malloc(IN_BYTES);
    for (int i = 0; i < stream_count; i++)
        c->streams[i].reply = malloc(MAX_REPLY_BYTES);
    if (nghttp2_hd_inflate_new(&c->inflater) || connect(c->fd, (struct sockaddr *)&to, sizeof to))
        die("h2_load: connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    memcpy(reserve(c, 24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    char *p = frame(c, NGHTTP2_SETTINGS, 0, 0, 12);
    memcpy(p, "\0\2\0\0\0\0\0\4", 8); /* no push; the initial window follows */
    put32(p + 8, WINDOW_BYTES);
    window_update(c, 0, WINDOW_BYTES);
    flush(c);
}

int main(int argc, char **argv)
{
    int port = 0, connections = 1, spin = 0, option;
    double seconds = 1, warm_up = 0, rate = 0;
    uint64_t limit = UINT64_MAX;
    const char *path = NULL;
    while ((option = getopt(argc, argv, "p:u:r:c:m:d:n:w:R:e:f:o:s")) != -1)
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'r': make_message(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 'm': stream_count = atoi(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': limit = strtoull(optarg, NULL, 10); seconds = 1e6; break;
        case 'w': warm_up = atof(optarg); break;
        case 'R': rate = atof(optarg); spin = 1; break;
        case 'e': expected = read_file(optarg, &expected_bytes); break;
        case 'f': float_count = strtoul(optarg, NULL, 10); break;
        case 'o': first_reply_path = optarg; break;
        case 's': spin = 1; break;
        default: return 64;
        }
    if (!port || !path || !message || connections < 1 || stream_count < 1 || stream_count > MAX_STREAMS ||
        4 * float_count > expected_bytes)
        return fprintf(stderr, "usage: h2_load -p PORT -u PATH -r FILE [-c N] [-m N] [-d S | -n N] [-w S] [-R RATE] "
                               "[-e FILE [-f N]] [-o FILE] [-s]\n"),
               64;
    make_blocks(path, port);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    Connection *all = calloc(connections, sizeof *all);
    struct epoll_event events[256];
    for (int i = 0; i < connections; i++)
        open_connection(&all[i], port);
    int warming = warm_up > 0, next = 0;
    uint64_t began = now_ns(), phase_end = began + (uint64_t)((warming ? warm_up : seconds) * 1e9), measured_from = began;
    arrival_gap_ns = rate > 0 ? 1e9 / rate : 0;
    next_arrival_ns = (double)began;
    for (int i = 0; i < connections && !rate; i++) {
        while (all[i].active < stream_count && sent_total < limit)
            start(&all[i]);
        flush(&all[i]);
    }
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
        if (rate > 0)
            arrive(now);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            while (!rate && c->fd >= 0 && c->active < stream_count && sent_total < limit)
                start(c);
            if (c->fd >= 0)
                flush(c);
        }
        for (int tried = 0; tried < connections && due_count(); tried++) {
            Connection *c = &all[next++ % connections];
            if (c->fd >= 0 && c->active < stream_count) {
                start(c);
                flush(c);
                tried = -1;
            }
        }
        if (sent_total >= limit || lost) {
            int busy = 0;
            for (int i = 0; i < connections; i++)
                busy += all[i].active;
            if (!busy)
                break;
        }
    }
    return print_result((now_ns() - measured_from) / 1e9);
}
