"""IPsec: associations, policies, and ESP and AH as functions from packet to packet (RFC 4301, 4302, 4303).

Performs no key exchange and no I/O: keys, packets, time and randomness are handed to it.
"""
