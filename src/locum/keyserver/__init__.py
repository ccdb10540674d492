"""C, the server: holds private keys and performs with them what its edges may ask."""
