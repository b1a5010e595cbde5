"""From a prompt and a clip to the inputs of a model, their positions and their layout."""
