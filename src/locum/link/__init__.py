"""The protected channel between terminal and delegate: a CoAP and OSCORE endpoint for both roles, without I/O.

Never knows what is asked for, nor any socket, clock or source of randomness: those are handed in.
"""
