"""A finished call's outputs or failure; nothing here is for Python."""
