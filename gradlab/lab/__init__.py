"""The tabular lab: worlds, policies, and their training by preference losses and by PPO, every probability in sight."""
