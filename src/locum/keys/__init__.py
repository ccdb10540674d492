"""Private keys behind one port: whoever holds one can sign and decrypt, and need not show it."""
