"""What does `python -m benchmarks` do? It runs the whole table."""

from benchmarks.run import main

main()
