"""`python -m stfit`, which is also what `torchrun -m stfit` starts."""

from stfit.cli.app import main

main()
