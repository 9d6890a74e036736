"""`python -m stfit`, which is also what `torchrun -m stfit` starts."""

from stfit.cli.main import main

main()
