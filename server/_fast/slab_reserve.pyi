"""Slabs that are kept for one owner; for C users and server._fast.ring only."""
