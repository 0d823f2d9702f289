/* The least a gRPC server must do: the floor c_sock of the gRPC cells.
 *
 * One thread, level-triggered epoll, libnghttp2, a read of up to 256 KiB at a time. Per call: decode the headers and forget
 * them, copy the request's data into shared memory (the one copy in), and at its end answer :status 200, one constant
 * message and grpc-status 0. All that one read made due leaves in one write. It looks at no header, no message and no
 * limit, and is not a server to use.
 *
 *     h2_floor REPLY_MESSAGE_FILE        listens on a free port of 127.0.0.1 and prints it
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, IN_BYTES = 1 << 18, MAX_REPLY_BYTES = 16384, ARENA_BYTES = 1 << 26, MAX_FDS = 4096 };
enum { STREAM_WINDOW_BYTES = 8 << 20, MAX_FRAME_BYTES = 1 << 18 };

typedef struct {
    nghttp2_session *session;
    char *out;
    size_t len, cap;
} Connection;

static char reply[MAX_REPLY_BYTES];
static size_t reply_bytes, arena_used;
static char *arena;
static char input[IN_BYTES];
static nghttp2_session_callbacks *callbacks;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *to, size_t length, uint32_t *flags,
                          nghttp2_data_source *source, void *user_data)
{
    (void)source, (void)user_data;
    nghttp2_nv status = field("grpc-status", "0");
    if (length < reply_bytes)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    memcpy(to, reply, reply_bytes);
    *flags = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(session, id, &status, 1);
    return (ssize_t)reply_bytes;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)user_data;
    if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) ||
        !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    nghttp2_nv headers[2] = {field(":status", "200"), field("content-type", "application/grpc")};
    nghttp2_data_provider provider = {.read_callback = read_reply};
    return nghttp2_submit_response(session, frame->hd.stream_id, headers, 2, &provider);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n, void *user_data)
{
    (void)session, (void)flags, (void)id, (void)user_data;
    if (arena_used + n > ARENA_BYTES)
        arena_used = 0;
    memcpy(arena + arena_used, data, n);
    arena_used += n;
    return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            len -= n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1000);
        } else if (!(n < 0 && errno == EINTR)) {
            return -1;
        }
    }
    return 0;
}

/* What the session has ready, in one write. */
static int pump(int fd, Connection *c)
{
    const uint8_t *data;
    ssize_t n;
    c->len = 0;
    while ((n = nghttp2_session_mem_send(c->session, &data)) > 0) {
        if (c->len + n > c->cap) {
            c->cap = 2 * (c->len + n);
            c->out = realloc(c->out, c->cap);
            if (!c->out)
                die("realloc");
        }
        memcpy(c->out + c->len, data, n);
        c->len += n;
    }
    return n < 0 ? -1 : write_all(fd, c->out, c->len);
}

static int serve(int fd, Connection *c)
{
    ssize_t n = read(fd, input, sizeof input);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0 || nghttp2_session_mem_recv(c->session, (uint8_t *)input, n) < 0)
        return -1;
    return pump(fd, c);
}

static int open_session(int fd, Connection *c)
{
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, MAX_FRAME_BYTES},
    };
    *c = (Connection){0};
    if (nghttp2_session_server_new(&c->session, callbacks, NULL))
        return -1;
    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, 3);
    nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, STREAM_WINDOW_BYTES);
    return pump(fd, c);
}

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: h2_floor REPLY_MESSAGE_FILE\n");
        return 64;
    }
    size_t n = fread(reply + 5, 1, sizeof reply - 5, file);
    if (!feof(file))
        die("h2_floor: a reply of 16 KiB or more");
    reply[3] = (char)(n >> 8);
    reply[4] = (char)n;
    reply_bytes = n + 5;
    int memory = memfd_create("h2_floor", 0);
    arena = memory < 0 || ftruncate(memory, ARENA_BYTES) ? MAP_FAILED
                                                         : mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (arena == MAP_FAILED)
        die("memfd");
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_bytes = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &address_bytes);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    Connection *connections = calloc(MAX_FDS, sizeof *connections);
    if (!connections || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd, is_new = fd == listener;
            if (is_new && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0)
                continue;
            if (is_new && fd < MAX_FDS) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            }
            if (fd >= MAX_FDS) {
                close(fd);
            } else if (is_new ? open_session(fd, &connections[fd]) : serve(fd, &connections[fd])) {
                nghttp2_session_del(connections[fd].session);
                free(connections[fd].out);
                close(fd);
            }
        }
    }
}
