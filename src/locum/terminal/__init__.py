"""System A, the device: drives TLS with a delegate's answers and contains no public-key code."""
