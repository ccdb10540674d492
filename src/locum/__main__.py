"""`python -m locum` is the command `locum`."""

from locum.cli.main import main

main()
