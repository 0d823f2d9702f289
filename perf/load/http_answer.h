/* One answer of HTTP/1.1 among received bytes: what the HTTP load clients share. */
#ifndef HTTP_ANSWER_H
#define HTTP_ANSWER_H

#include "../http_message.h"

/* Length of the answer at data[0:len] or 0; *status and the body's place are set. */
static size_t answer_bytes(const char *data, size_t len, int *status, size_t *body_at)
{
    size_t bytes = message_bytes(data, len, body_at);
    if (bytes)
        *status = atoi(data + 9);
    return bytes;
}

#endif
