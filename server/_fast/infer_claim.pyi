"""A request's rows claimed and filled; nothing here is for Python."""
