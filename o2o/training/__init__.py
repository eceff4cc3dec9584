"""The two phases of learning, many seeds at once, evaluations, diagnostics and checkpoints."""
