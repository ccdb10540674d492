"""System A, the server: answers the four operations of terminals over CoAP."""
