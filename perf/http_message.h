/* Messages of HTTP/1.1 among received bytes: what the load clients and the floor share. */
#ifndef HTTP_MESSAGE_H
#define HTTP_MESSAGE_H

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Length of the message at data[0:len], 0 while it is incomplete; *body_at is set with its head. */
static size_t message_bytes(const char *data, size_t len, size_t *body_at)
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
    return *body_at + body <= len ? *body_at + body : 0;
}

#endif
