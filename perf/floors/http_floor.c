/* The least an HTTP/1.1 server must do: the floor c_sock of the performance cells.
 *
 * One thread, level-triggered epoll, keep-alive, pipelining. Per request: find the end of the head, find Content-Length,
 * wait for the whole body, answer a constant of HEAD + BODY bytes. All answers of one read leave in one write.
 * It validates nothing and is not a server to use. With RECEIVE_BYTES a connection receives into as much shared memory,
 * as a server does whose tensors another process reads.
 *
 *     http_floor HEAD_BYTES BODY_BYTES [RECEIVE_BYTES]        listens on a free port of 127.0.0.1 and prints it
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../http_message.h"

enum { EVENTS = 256, FIRST_CAPACITY = 65536, PIPELINE = 64 };

typedef struct {
    char *data;
    size_t len, cap;
} Connection;

static char *reply;
static size_t reply_bytes;
static char *batch;
static size_t receive_bytes;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
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

/* One read, every complete request in it answered. -1 when the connection is over. */
static int serve(int fd, Connection *c)
{
    if (c->len == c->cap && receive_bytes)
        return -1;
    if (c->len == c->cap) {
        c->cap *= 2;
        c->data = realloc(c->data, c->cap);
        if (!c->data)
            die("realloc");
    }
    ssize_t n = read(fd, c->data + c->len, c->cap - c->len);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (n == 0)
        return -1;
    c->len += n;
    size_t used = 0, size, body_at;
    int answers = 0;
    while ((size = message_bytes(c->data + used, c->len - used, &body_at))) {
        used += size;
        if (++answers == PIPELINE) {
            if (write_all(fd, batch, answers * reply_bytes))
                return -1;
            answers = 0;
        }
    }
    if (used < c->len)
        memmove(c->data, c->data + used, c->len - used);
    c->len -= used;
    return answers ? write_all(fd, batch, answers * reply_bytes) : 0;
}

static Connection make_connection(void)
{
    if (!receive_bytes)
        return (Connection){malloc(FIRST_CAPACITY), 0, FIRST_CAPACITY};
    int memory = memfd_create("http_floor", 0);
    if (memory < 0 || ftruncate(memory, receive_bytes))
        die("memfd");
    char *data = mmap(NULL, receive_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
    if (data == MAP_FAILED)
        die("mmap");
    close(memory);
    return (Connection){data, 0, receive_bytes};
}

static void drop_connection(Connection *c)
{
    if (receive_bytes)
        munmap(c->data, c->cap);
    else
        free(c->data);
    c->data = NULL;
}

static void make_reply(size_t head_bytes, size_t body_bytes)
{
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n", body_bytes);
    size_t least = (size_t)n + 2;
    if (head_bytes < least)
        head_bytes = least;
    reply_bytes = head_bytes + body_bytes;
    reply = malloc(reply_bytes);
    batch = malloc(reply_bytes * PIPELINE);
    if (!reply || !batch)
        die("malloc");
    memset(reply, 'x', reply_bytes);
    memcpy(reply, head, n);
    /* A filler field brings the head to the size of the server's; fewer than 5 spare bytes become spaces of its value. */
    size_t spare = head_bytes - least;
    if (spare >= 5) {
        memcpy(reply + n, "X: ", 3);
        memcpy(reply + head_bytes - 4, "\r\n", 2);
    } else {
        memset(reply + n - 2, ' ', spare);
        memcpy(reply + head_bytes - 4, "\r\n", 2);
    }
    memcpy(reply + head_bytes - 2, "\r\n", 2);
    for (int i = 0; i < PIPELINE; i++)
        memcpy(batch + i * reply_bytes, reply, reply_bytes);
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: http_floor HEAD_BYTES BODY_BYTES [RECEIVE_BYTES]\n");
        return 64;
    }
    receive_bytes = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    signal(SIGPIPE, SIG_IGN);
    make_reply(strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_bytes = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &address_bytes);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    Connection *connections = calloc(65536, sizeof *connections);
    if (!connections || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (peer < 0)
                    continue;
                if (peer >= 65536) {
                    close(peer);
                    continue;
                }
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connections[peer] = make_connection();
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = peer};
                epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
            } else if (serve(fd, &connections[fd])) {
                drop_connection(&connections[fd]);
                close(fd);
            }
        }
    }
}
