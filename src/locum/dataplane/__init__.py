"""Where associations take effect on this host: the kernel's own IPsec, or ours over a TUN device (B7, B13)."""
