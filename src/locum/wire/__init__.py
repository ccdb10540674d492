"""Bytes on the wire: a bounded cursor for reading and a buffer for writing; nothing of any protocol."""
