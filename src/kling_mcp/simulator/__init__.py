"""fal's queue, storage and platform API on this machine, for demos and tests: no key, no network, no money."""
