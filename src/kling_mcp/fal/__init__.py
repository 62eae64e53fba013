"""The HTTP calls that this program makes to fal.ai, and nothing else."""
