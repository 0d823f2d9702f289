/* One answer of HTTP/1.1 among received bytes: what the HTTP load clients share. */
#ifndef HTTP_ANSWER_H
#define HTTP_ANSWER_H

#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

#endif
