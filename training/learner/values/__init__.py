"""Values of tokens learned from completions that are already written: losses, network, replay buffer, updates."""
