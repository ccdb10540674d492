"""The protected channel: a CoAP and OSCORE endpoint without I/O, for both roles."""
