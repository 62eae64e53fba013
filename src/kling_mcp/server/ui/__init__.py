"""The page that shows a job in hosts that render MCP Apps."""
