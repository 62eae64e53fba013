"""From intent to saved video: the order in which things become true."""
