"""Loading models, and forward passes over packed batches: policy, reward model, critic, LoRA."""
