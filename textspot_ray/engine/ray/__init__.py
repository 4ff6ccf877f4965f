"""The Ray engine: the only room of the engine that imports ray."""
