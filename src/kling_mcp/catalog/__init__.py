"""What each Kling endpoint on fal.ai accepts and costs: data files and pure functions, no I/O after loading."""
