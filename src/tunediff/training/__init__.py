"""How to tune? A recipe and a loop; they make adapters and nothing else."""
