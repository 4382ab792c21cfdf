"""Values of tokens, learned from existing completions: losses, network, replay buffer, updates."""
