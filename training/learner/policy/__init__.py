"""Policy optimisation: rollouts, advantages, losses, updates, evaluation."""
