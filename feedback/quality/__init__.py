"""Statistics of labels and annotators: agreement, reliability, checks for careless work."""
