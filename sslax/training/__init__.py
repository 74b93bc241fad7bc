"""From a config to a trained state: plan, step, loop, optimizer, checkpoints."""
