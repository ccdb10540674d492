"""Bytes on the wire: a bounded cursor, a buffer for writing, and CBOR read strictly; nothing of any protocol."""
