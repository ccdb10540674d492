"""One node: configuration, the composition of the roles, start and orderly end."""
