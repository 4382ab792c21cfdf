"""Worker side of a round: fill the job directories, run the programs, follow their metrics.

`run_round.run` runs a complete round. No database transaction is open while a program runs.
"""
