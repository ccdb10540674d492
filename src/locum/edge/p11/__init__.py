"""The PKCS#11 agent (X4): unmodified servers use a remote key through their system's own `p11-kit-client.so`."""
