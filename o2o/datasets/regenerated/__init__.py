"""Sets that this project generates: behaviour policies, rollouts and recipes."""
