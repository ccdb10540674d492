"""Cryptography by way of the `cryptography` library: `symmetric` for all, `asymmetric` never for terminals."""
