"""`python -m recipes.nano`: the same as `python recipes/nano/run.py`."""

from recipes.nano.run import main

main()
