"""IKEv1 and IKEv2 without I/O and without public-key code: messages, proposals, keying material, protection."""
