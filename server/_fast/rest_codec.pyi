"""The REST inference protocols of both HTTP versions; for C users only, tested through a server."""
