"""The gRPC inference protocols; for C users only, tested through a server."""
