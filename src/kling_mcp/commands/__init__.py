"""What a person runs in a terminal; the server is not one of them."""
