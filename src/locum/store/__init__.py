"""The databases of A5: terminals, authentication keys, policies, identities, cipher keys, audit log."""
