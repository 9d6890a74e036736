"""`python -m stfit`, which is also what `torchrun -m stfit` starts."""

from stfit.cli.main import main_and_exit

main_and_exit()
