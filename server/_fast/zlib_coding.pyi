"""gzip and deflate of whole messages; for C users only, tested through a server."""
