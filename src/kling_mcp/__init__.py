"""kling-mcp lets an AI assistant make Kling videos on fal.ai: the price first, one charge, never a lost video."""

__version__ = "0.1.0"
