"""Frames of HTTP/2 connections; its interface is C."""
