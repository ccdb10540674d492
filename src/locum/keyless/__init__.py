"""The keyless protocol between those who use private keys and the key server that has them (X5), without I/O."""
