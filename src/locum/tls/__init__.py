"""TLS 1.2 and 1.3 without I/O and without public-key code: handshakes are generators that ask."""
