"""What an assistant sees: tools, resources, prompts and tasks over MCP."""
