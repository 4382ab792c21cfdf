"""Reward function of a program: the terms of the settings, applied to answers. Terms are in `reward_terms`."""
