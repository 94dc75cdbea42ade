"""`python -m memtherm`."""

from memtherm.cli.main import main

main()
