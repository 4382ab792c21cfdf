"""Reports on the reward models of rounds: how well they predict people's rankings, and which rankings are surprising.

`held_out` reads what the program `reward` wrote, `figures` computes the report, `record` stores both with the round
when the program has ended, and `surprising` lists the rankings for reviewers.
"""
