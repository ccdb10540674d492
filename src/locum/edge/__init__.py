"""C, the side without keys: a TLS terminator, and an agent for unmodified servers."""
