"""Who answers a handshake's key-exchange operations: the port, its messages, and its two answerers."""
