"Layers."
